"""Where torch models of a worker run: the GPU that Ray gave it, otherwise the CPU, few threads."""

import os
from typing import Any


def torch_device() -> Any:
    """The device, with torch's threads set to the worker's share."""
    import torch

    torch.set_num_threads(int(os.environ.get("PERSONA_THREADS", "1")))
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
