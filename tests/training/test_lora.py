"""LoRA and DoRA: as PEFT computes them, as they begin, merged, and in which precision."""

import copy
from typing import Any

import peft
import pytest
import torch
from torch import nn

from training.models.lora import (
    LoraSettings,
    install_lora,
    is_lora,
    merged,
    own_tensors,
    peft_tensors,
)


def network(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.ModuleDict({"to_q": nn.Linear(12, 8), "ff": nn.Sequential(nn.GELU(), nn.Linear(8, 6, False))})
    return nn.Sequential(layers["to_q"], *layers["ff"]).requires_grad_(False).to(dtype)


def lora_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    return {path: p for path, p in network.named_parameters() if is_lora(path)}


def with_lora(dtype: torch.dtype = torch.float32, **settings: Any) -> nn.Module:
    """Both of its linear layers, with changes that are no longer what they began as."""
    made = network(dtype)
    assert install_lora(made, LoraSettings(rank=3, targets=("0", "2"), **settings)) == ["0", "2"]
    with torch.no_grad():
        for parameter in lora_parameters(made).values():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return made


KINDS = pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])


@KINDS
def test_a_network_begins_as_it_is_without_lora(dora: bool) -> None:
    plain, made, x = network(), network(), torch.randn(5, 12)
    install_lora(made, LoraSettings(rank=3, targets=("0",), dora=dora))
    torch.testing.assert_close(made(x), plain(x), rtol=1e-6, atol=1e-6)
    assert {path for path, p in made.named_parameters() if p.requires_grad} == lora_parameters(made).keys()


@KINDS
def test_peft_reads_the_tensors_and_computes_the_same_with_the_same_gradients(dora: bool) -> None:
    settings = LoraSettings(rank=3, alpha=6.0, targets=("0", "2"), dora=dora)
    ours = with_lora(alpha=6.0, dora=dora)
    config = peft.LoraConfig(r=3, lora_alpha=3, target_modules=["0", "2"], use_dora=dora)
    theirs: Any = peft.inject_adapter_in_model(config, network())
    found: Any = peft.set_peft_model_state_dict(theirs, peft_tensors(lora_parameters(ours), settings.scale))
    assert not found.unexpected_keys
    x, direction = torch.randn(5, 12), torch.randn(5, 6)
    results = []
    for made in (ours, theirs):
        given = x.clone().requires_grad_()
        out = made(given)
        (out * direction).sum().backward()
        results.append((out, given.grad))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    for path, parameter in lora_parameters(ours).items():
        layer, part = path.split(".", 1)
        theirs_of = gradients[f"{layer}.{part.replace('.weight', '.default.weight')}"
                              if "lora_A" in part or "lora_B" in part
                              else f"{layer}.lora_magnitude_vector.default.weight"]  # fmt: skip
        scale = settings.scale if "lora_B" in path else 1.0  # which lies within their B
        torch.testing.assert_close(parameter.grad, scale * theirs_of, rtol=1e-4, atol=1e-5)


@KINDS
def test_merged_layers_do_the_same_alone_and_what_was_merged_comes_back_to_the_bit(dora: bool) -> None:
    made, x = with_lora(alpha=1.5, dora=dora), torch.randn(5, 12)
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    expected = made(x)
    with merged(made):
        assert made.state_dict().keys() == network().state_dict().keys()
        torch.testing.assert_close(made(x), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(made(x), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.state_dict().items())


def test_tensors_come_back_from_peft_s_names() -> None:
    tensors = {path: p.detach() for path, p in lora_parameters(with_lora(dora=True)).items()}
    back = own_tensors(peft_tensors(tensors, 2.0), 2.0)
    assert all(torch.equal(back[path], tensor) for path, tensor in tensors.items())


@KINDS
def test_a_change_is_kept_in_float32_and_computes_as_its_layer_does(dora: bool) -> None:
    made = with_lora(torch.bfloat16, dora=dora)
    x = torch.randn(5, 12).bfloat16()
    assert {p.dtype for p in lora_parameters(made).values()} == {torch.float32}
    exact = copy.deepcopy(made).float()
    out = made(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), exact(x.float()), rtol=0.05, atol=0.05)
    out.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in lora_parameters(made).values())


@pytest.mark.parametrize(("target", "why"), [("to_z", "names no layer"), ("1", "names a GELU, no linear")])
def test_a_target_that_is_no_linear_layer_is_refused_by_name(target: str, why: str) -> None:
    with pytest.raises(ValueError, match=rf"lora\.targets: {target} {why}"):
        install_lora(network(), LoraSettings(targets=("0", target)))
