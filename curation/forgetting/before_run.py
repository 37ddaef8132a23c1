"""What is checked before a run starts: no wish is half done, tombstones can be read, no dataset is lost."""

from curation.errors import ConfigError
from curation.forgetting.forget import require_nothing_pending
from curation.forgetting.tombstones import stores_of
from curation.run_folder import Run
from curation.settings import PipelineSettings


def check_wishes(run: str, pipeline: PipelineSettings) -> None:
    """Raises ConfigError where the run must not start."""
    for store in stores_of(run, pipeline.photos.screen.forgotten):
        require_nothing_pending(store)
        store.read()
    revision = (Run(run).dataset or {}).get("revision", 0)
    if revision:
        raise ConfigError(
            f"{Run(run).shards}: is revision {revision} of a dataset that people were taken out of; "
            "packing it anew would lose the positions of trainings that read it: move it away, then the same "
            "command packs another"
        )
