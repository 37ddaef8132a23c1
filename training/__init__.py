"""Training on shards: models, recipes, the loop, checkpoints, export. Knows neither ray nor curation."""

import logging

# diffusers imports torchao wherever it is installed, and both tell of their own versions' differences on
# stderr: nothing that depends on them is used here, and nobody could act on it.
for _name in ("torch.utils._pytree", "diffusers.quantizers.torchao.torchao_quantizer"):
    logging.getLogger(_name).setLevel(logging.ERROR)
