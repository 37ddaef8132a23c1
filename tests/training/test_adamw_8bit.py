"""AdamW with moments in 8 bits: near AdamW, a quarter of its memory, and the same after a resume."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.utils._pytree import tree_leaves

from training.adamw_8bit import dynamic_values
from training.optimiser import load_optimiser_tensors, make_optimiser, optimiser_tensors
from training.run_settings import OptimiserSettings

torch.set_num_threads(1)  # so small a network is slower on two


@pytest.fixture(scope="module", autouse=True)
def kernels_that_a_profiler_sees() -> Iterator[None]:
    """Of what inductor compiles for a CPU, which all tests here share."""
    counters.clear()
    with torch._inductor.config.patch({"cpp.enable_kernel_profile": True}):
        yield


# What single operations that write to memory are called by a profiler.
PASSES = {
    "abs", "add", "addcmul", "amax", "bucketize", "clamp", "copy_", "div", "fill_", "gt", "index", "lerp",
    "mul", "pow", "rsub", "sqrt", "sub", "where",
}  # fmt: skip


def fitted(
    eight_bit: bool,
    steps: int,
    at: Callable[[int, dict[str, nn.Parameter], torch.optim.Optimizer], None],
    backend: str | None = None,
):
    """A small network that learns another one's answers; `at` is called before each step. 256 divides the
    size of none of its weights."""
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(70, 130), nn.Tanh(), nn.Linear(130, 60))
    network = nn.Sequential(nn.Linear(70, 130), nn.Tanh(), nn.Linear(130, 60))
    trained = dict(network.named_parameters())
    optimiser = make_optimiser(
        trained, OptimiserSettings(name="adamw_8bit" if eight_bit else "adamw", lr=3e-3), backend=backend
    )
    losses = []
    for step in range(steps):
        at(step, trained, optimiser)
        x = torch.randn(64, 70, generator=torch.Generator().manual_seed(step))
        loss = ((network(x) - teacher(x).detach()) ** 2).mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    return losses, trained, optimiser


def nothing(step: int, trained: dict[str, nn.Parameter], optimiser: torch.optim.Optimizer) -> None:
    pass


def test_it_learns_as_adamw_does_with_a_quarter_of_its_state() -> None:
    full, _, exact = fitted(False, 150, nothing)
    low, _, eight = fitted(True, 150, nothing)
    assert low[-1] == pytest.approx(full[-1], rel=0.05)
    assert low[-1] < 0.5 * low[0]

    def size(optimiser: torch.optim.Optimizer) -> int:
        leaves = tree_leaves(list(optimiser.state.values()))
        return sum(leaf.numel() * leaf.element_size() for leaf in leaves if isinstance(leaf, Tensor))

    assert size(eight) < 0.28 * size(exact)


@pytest.mark.parametrize("backend", [None, "aot_eager"], ids=["single operations", "compiled"])
def test_moments_that_were_saved_and_loaded_give_the_same_run_bit_for_bit(backend: str | None) -> None:
    def reloaded(step: int, trained: dict[str, nn.Parameter], optimiser: torch.optim.Optimizer) -> None:
        if step in (5, 11):
            saved = {name: tensor.clone() for name, tensor in optimiser_tensors(optimiser, trained).items()}
            assert all(tensor.dtype == torch.float32 for tensor in saved.values())
            optimiser.state.clear()
            load_optimiser_tensors(optimiser, trained, saved)

    assert fitted(True, 20, reloaded, backend)[0] == fitted(True, 20, nothing, backend)[0]


def test_a_compiled_update_is_the_one_of_single_operations_but_for_rounding() -> None:
    """A step is skipped on the way; numbers that round otherwise may move a code to its neighbour."""

    def skipped(step: int, trained: dict[str, nn.Parameter], optimiser: torch.optim.Optimizer) -> None:
        optimiser.found_inf = torch.tensor(float(step == 4))

    _, single, eager = fitted(True, 12, skipped)
    _, fused, compiled = fitted(True, 12, skipped, "aot_eager")
    for name, parameter in single.items():
        torch.testing.assert_close(fused[name], parameter, rtol=0, atol=2e-2 * 3e-3)  # of a step's length
    found = optimiser_tensors(compiled, fused)
    for name, tensor in optimiser_tensors(eager, single).items():
        assert (found[name] - tensor).norm() <= 1e-3 * tensor.norm(), name
        assert not name.endswith("step") or tensor == 11


def test_parameters_of_all_sizes_are_at_most_two_compiled_graphs_of_a_few_kernels() -> None:
    def kernels(backend: str | None) -> float:
        """That a parameter costs in the second step of four."""
        parameters = {f"{n}": nn.Parameter(torch.randn(32 * n, 256)) for n in (1, 2, 3)}
        parameters["convolution"] = nn.Parameter(torch.randn(32, 16, 3, 3))
        for parameter in parameters.values():
            parameter.grad = torch.randn_like(parameter)
        optimiser = make_optimiser(parameters, OptimiserSettings(name="adamw_8bit"), backend=backend)
        optimiser.step()
        with torch.profiler.profile() as profiled:
            optimiser.step()
        names = [event.name.removeprefix("aten::") for event in profiled.events()]
        return sum(name in PASSES or "fused" in name for name in names) / len(parameters)

    torch._dynamo.reset()
    counters.clear()
    single, fused = kernels(None), kernels("inductor")
    assert counters["stats"]["unique_graphs"] <= 2  # of four sizes
    assert single >= 30
    assert fused <= 5  # two of them bucketize, which on a GPU is within a kernel


def test_a_weight_whose_channels_lie_last_is_updated_in_the_order_of_its_memory() -> None:
    torch.manual_seed(0)
    plain = torch.randn(32, 3, 3, 20)
    gradients = torch.randn(6, 32, 3, 3, 20)
    made = []
    for weight in (nn.Parameter(plain.clone()), nn.Parameter(plain.clone().permute(0, 3, 1, 2))):
        trained = {"w": weight}
        named = OptimiserSettings(name="adamw_8bit", lr=1e-2)
        optimiser = make_optimiser(trained, named)
        for step, drawn in enumerate(gradients):
            if step == 3:  # as a run that goes on from a checkpoint, which holds everything contiguous
                state = optimiser_tensors(optimiser, trained)
                saved = {name: tensor.contiguous().clone() for name, tensor in state.items()}
                optimiser = make_optimiser(trained, named)
                load_optimiser_tensors(optimiser, trained, saved)
            turned = drawn if weight.shape == plain.shape else drawn.permute(0, 3, 1, 2)
            weight.grad = turned.contiguous()
            optimiser.step()
        made.append(weight.detach())
    assert made[1].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(made[0], made[1].permute(0, 2, 3, 1))


def test_a_run_changes_between_8_and_32_bits() -> None:
    """Also one whose weights' channels lie last; checkpoints hold everything contiguous."""
    torch.manual_seed(0)
    convolution = torch.randn(32, 20, 3, 3).to(memory_format=torch.channels_last)
    trained = {"w": nn.Parameter(torch.randn(70, 130)), "channels_last": nn.Parameter(convolution)}

    def made(name: str, found: dict[str, Tensor]) -> torch.optim.Optimizer:
        optimiser = make_optimiser(trained, OptimiserSettings.model_validate({"name": name, "lr": 1e-3}))
        if found:
            load_optimiser_tensors(optimiser, trained, found)
        return optimiser

    def stepped(optimiser: torch.optim.Optimizer, steps: int) -> dict[str, Tensor]:
        for _ in range(steps):
            for parameter in trained.values():
                parameter.grad = torch.randn_like(parameter)
            optimiser.step()
        state = optimiser_tensors(optimiser, trained)
        return {name: tensor.detach().contiguous().clone() for name, tensor in state.items()}

    full = stepped(made("adamw", {}), 10)
    eight = made("adamw_8bit", full)
    read = stepped(eight, 0)
    assert read.keys() == full.keys()
    for name, tensor in read.items():
        assert (tensor - full[name]).norm() <= 0.03 * full[name].norm(), name
    moved = stepped(eight, 5)
    back = made("adamw", moved)
    for name, tensor in stepped(back, 0).items():
        assert torch.equal(tensor, moved[name]), name
    assert all(tensor == 16 for name, tensor in stepped(back, 1).items() if name.endswith("step"))


@pytest.mark.parametrize("signed", [True, False])
def test_codes_stand_for_256_values_that_reach_seven_orders_of_magnitude(signed: bool) -> None:
    values = dynamic_values(signed=signed)
    assert len(values.unique()) == 256
    assert values.max() == 1
    assert values[values > 0].min() < 1e-6
    assert (values.min() < -0.9) if signed else (values.min() > 0)
