"""A rank that torchrun has started, of a training whose checkpoints take seconds to write.

    torchrun … -m tests.train_slow_checkpoint FOLDER

Each rank says in FOLDER/rank-N.json, when its training has ended, up to which step is saved by then.
"""

import json
import sys
import time
from pathlib import Path
from unittest.mock import patch

from tests.train_tiny import training
from training.checkpoint import LocalCheckpoints, checkpoints_in, load_checkpoint
from training.ranks import StopSignals, join_ranks

WRITE_S = 3.0


def main() -> None:
    """Trains until it is told to stop."""
    folder = Path(sys.argv[1])
    publish = LocalCheckpoints.publish

    def slowly(self: LocalCheckpoints, aside: Path, name: str) -> None:
        time.sleep(WRITE_S)
        publish(self, aside, name)

    with (
        patch.object(LocalCheckpoints, "publish", slowly),
        join_ranks(timeout_s=60) as ranks,
        StopSignals() as stop,
    ):
        run = training(folder, ranks, batch=1, steps=100_000, read_every=1, checkpoint_every=4)
        steps = run.run(stop)
        saved = load_checkpoint(checkpoints_in(folder / "checkpoints")[-1]).step
    (folder / f"rank-{ranks.rank}.json").write_text(json.dumps({"steps": steps, "saved": saved}))


if __name__ == "__main__":
    main()
