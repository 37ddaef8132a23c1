"""The loop: batches in, checkpoints and metrics out. It names no method."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor, nn

from training.batch import Batch, Batches
from training.checkpoint import Checkpoint, CheckpointError, CheckpointFolder, checkpoints_in, load_checkpoint
from training.loop_settings import LoopSettings
from training.metrics import JsonLines, Metrics
from training.optimiser import learning_rate
from training.ranks import Ranks
from training.rates import Rates
from training.recipes.recipe import Recipe
from training.step import Step
from training.step_record import StepRecord
from training.validation import validation_loss


class Training:
    """One run of one recipe in one folder; `run` goes on from the folder's last checkpoint.

    recipe       the method
    module       as `recipe.build` made it, on `ranks.device`; compiled or not
    batches      this rank's; their position is saved and restored
    validation   this rank's fixed batches; may be empty

    The folder gets `checkpoints/` and `metrics.jsonl`. Raises CheckpointError where the last checkpoint
    is of another recipe or is damaged.
    """

    def __init__(
        self,
        recipe: Recipe,
        module: nn.Module,
        batches: Batches,
        settings: LoopSettings,
        folder: Path,
        ranks: Ranks | None = None,
        validation: Sequence[Batch] = (),
    ) -> None:
        self.recipe, self.module, self.batches, self.settings = recipe, module, batches, settings
        self.ranks = ranks or Ranks()
        self.validation = validation
        self.step = 0
        self._folder = folder
        found = checkpoints_in(folder / "checkpoints")
        last = self.ranks.gather(found[-1] if found else None)[0]  # all go on from the same one
        checkpoint = load_checkpoint(last) if last else None
        if checkpoint is not None:
            self._load_adapter(checkpoint, last)
        self._rates = Rates(module, self.ranks)
        self._one_step = Step(module, recipe.blocks(module), settings, self.ranks)
        if checkpoint is not None:
            self._go_on(checkpoint, last)
        self._record = StepRecord(self.ranks)

    def run(self, stop: Callable[[], bool] = lambda: False) -> int:
        """Trains to the last step. Returns how many steps are done in all.

        Where `stop` says so on one rank, all ranks end a step that is under way, the same one, and write
        a checkpoint. Raises NonFiniteError where a loss or gradient was not finite, and what the batches
        raise.
        """
        settings = self.settings
        metrics = JsonLines(self._folder / "metrics.jsonl", self.step + 1) if self.ranks.first else None
        checkpoints = CheckpointFolder(
            self._folder / "checkpoints",
            settings.keep_checkpoints,
            settings.keep_every,
            writes=self.ranks.first,
        )
        stream = iter(self.batches)
        try:
            stopping = False
            while self.step < settings.steps and not stopping:
                to_stop = self.ranks.anyone(stop)
                self._rates.begin()
                batches = [next(stream) for _ in range(settings.accumulate)]
                self._rates.got(batches)
                self._one_step(self.step, batches, self._record)
                self.step += 1
                stopping = to_stop()
                last = self.step == settings.steps
                due = last or stopping or self.step % settings.checkpoint_every == 0
                if due or self.step % settings.read_every == 0:
                    self._report(metrics)
                if self.validation and (last or self.step % settings.validate_every == 0):
                    self._validate(metrics)
                if due:
                    self._save(checkpoints)
        finally:
            checkpoints.close()
            if metrics is not None:
                metrics.close()
        return self.step

    def _report(self, metrics: Metrics | None) -> None:
        """Waits for the device, raises if a step was not finite, writes what the steps gave."""
        results = self._record.read()
        rates = self._rates.since_last()
        for result in results:
            values = {
                "loss": result.loss,
                "grad_norm": result.grad_norm,
                "lr": learning_rate(self.settings.optimiser, result.step - 1, self.settings.steps),
            }
            if metrics is not None:
                metrics.write(result.step, values | (rates if result is results[-1] else {}))

    def _validate(self, metrics: Metrics | None) -> None:
        with self._one_step.autocast():
            loss = validation_loss(self.module, self.validation, self.ranks).item()
        if metrics is not None:
            metrics.write(self.step, {"validation_loss": loss})
        self._rates.restart()

    def _save(self, checkpoints: CheckpointFolder) -> None:
        tensors: dict[str, dict[str, Tensor]] = {
            "adapter": dict(self.recipe.adapter(self.module)),
            **self._one_step.state(),
        }
        record = {
            "recipe": self.recipe.name,
            "recipe_settings": self.recipe.settings.model_dump(mode="json"),
            "batches": self.batches.state_dict(),
            "settings": self.settings.model_dump(mode="json"),
        }
        checkpoints.save(self.step, tensors, record)

    def _load_adapter(self, checkpoint: Checkpoint, folder: Path) -> None:
        made_by = checkpoint.record.get("recipe")
        if made_by != self.recipe.name:
            raise CheckpointError(f"{folder}: made by the recipe {made_by}, this one is {self.recipe.name}")
        with _named(folder):
            self.recipe.load_adapter(self.module, checkpoint.tensors["adapter"])

    def _go_on(self, checkpoint: Checkpoint, folder: Path) -> None:
        with _named(folder):
            self._one_step.load_state(checkpoint.tensors)
        self.batches.load_state_dict(checkpoint.record["batches"])
        self.step = checkpoint.step


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Errors of tensors that do not fit, as one line with the checkpoint's folder."""
    try:
        yield
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{folder}: {str(error).splitlines()[0]}") from None
