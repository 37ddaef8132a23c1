"""Frozen parts compute in their own dtype, whatever the loop casts automatically around them.

Autocast makes float32 of norms and of what follows them, which costs memory and time and gains nothing
for weights that do not move.
"""

from contextlib import AbstractContextManager, nullcontext

import torch


def own_precision(device: torch.device, own: bool = True) -> AbstractContextManager[object]:
    """No autocast inside, where `own`; otherwise whatever is outside. `meta` knows no autocast."""
    if not own or device.type == "meta":
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
