"""The moving average of what is trained."""

import torch
from torch import nn

from training.optimiser import Ema


def test_an_average_forgets_its_start_and_then_moves_slowly() -> None:
    weight = nn.Parameter(torch.zeros(3))
    ema = Ema({"weight": weight}, decay=0.9)
    expected = torch.zeros(3)
    for step in range(200):
        with torch.no_grad():
            weight += 1
        ema.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight.detach()
        torch.testing.assert_close(ema.tensors["weight"], expected)
    # A decay of 0.9 lies nine steps behind what rises by 1 a step.
    torch.testing.assert_close(
        weight.detach() - ema.tensors["weight"], torch.full((3,), 9.0), rtol=1e-3, atol=0
    )


def test_an_average_is_of_the_parameters_and_no_part_of_them() -> None:
    weight = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    ema = Ema({"weight": weight}, decay=0.5)
    ema.tensors["weight"].fill_(7)
    assert weight.tolist() == [1, 1]
    assert ema.tensors["weight"].dtype == torch.float32
