"""A model of transformers and its processor out of a local folder, or one line of what is wrong with it."""

from typing import Any

from curation.errors import ConfigError, one_line
from curation.models import Models


def load_transformers(
    name: str, models: Models, processor: Any, network: Any, **options: Any
) -> tuple[Any, Any]:
    """The processor and the model, in evaluation mode, of the card `name`: classes of transformers, or Auto….

    Nothing is downloaded, no code of the folder is run, and weights are safetensors. Raises ConfigError,
    also where a weight is missing: transformers would fill it with random numbers. `options` go to the model.
    It computes in float32, whatever the folder stores: processors give float32, and would not fit to halves.
    """
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()  # one for each worker, in the middle of the run's own lines
    path = models[name].path
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        prepares = processor.from_pretrained(path, **local)
        model, report = network.from_pretrained(
            path, use_safetensors=True, output_loading_info=True, dtype=torch.float32, **local, **options
        )
    except Exception as error:  # OSError, ValueError, and those of safetensors and torch
        raise ConfigError(f"model {name}: {path}: {one_line(error)}") from None
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise ConfigError(f"model {name}: {path} lacks weights: {missing}")
    return prepares, model.eval()
