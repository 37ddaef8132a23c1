"""AdamW with moments in 8 bits: near AdamW, a quarter of its memory, and the same after a resume."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from training.adamw_8bit import dynamic_values
from training.optimiser import load_optimiser_tensors, make_optimiser, optimiser_tensors
from training.run_settings import OptimiserSettings

torch.set_num_threads(1)  # so small a network is slower on two


def fitted(
    eight_bit: bool, steps: int, at: Callable[[int, dict[str, nn.Parameter], torch.optim.Optimizer], None]
):
    """A small network that learns another one's answers; `at` is called before each step."""
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(70, 130), nn.Tanh(), nn.Linear(130, 60))
    network = nn.Sequential(nn.Linear(70, 130), nn.Tanh(), nn.Linear(130, 60))
    trained = dict(network.named_parameters())
    optimiser = make_optimiser(
        trained, OptimiserSettings(name="adamw_8bit" if eight_bit else "adamw", lr=3e-3)
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


def test_moments_that_were_saved_and_loaded_give_the_same_run_bit_for_bit() -> None:
    def reloaded(step: int, trained: dict[str, nn.Parameter], optimiser: torch.optim.Optimizer) -> None:
        if step in (5, 11):
            saved = {name: tensor.clone() for name, tensor in optimiser_tensors(optimiser, trained).items()}
            assert all(tensor.dtype == torch.float32 for tensor in saved.values())
            optimiser.state.clear()
            load_optimiser_tensors(optimiser, trained, saved)

    assert fitted(True, 20, reloaded)[0] == fitted(True, 20, nothing)[0]


def test_a_run_changes_between_8_and_32_bits() -> None:
    _, trained, full = fitted(False, 10, nothing)
    eight = make_optimiser(trained, OptimiserSettings(name="adamw_8bit"))
    load_optimiser_tensors(eight, trained, optimiser_tensors(full, trained))
    for name, tensor in optimiser_tensors(eight, trained).items():
        expected = optimiser_tensors(full, trained)[name]
        assert (tensor - expected).norm() <= 0.03 * expected.norm(), name


@pytest.mark.parametrize("signed", [True, False])
def test_codes_stand_for_256_values_that_reach_seven_orders_of_magnitude(signed: bool) -> None:
    values = dynamic_values(signed=signed)
    assert len(values.unique()) == 256
    assert values.max() == 1
    assert values[values > 0].min() < 1e-6
    assert (values.min() < -0.9) if signed else (values.min() > 0)
