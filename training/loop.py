"""The loop: batches in, checkpoints and metrics out. It names no method."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Any

import torch
from torch import Tensor, nn

from training.batch import Batch, Batches
from training.checkpoint import Checkpoint, CheckpointError, CheckpointFolder, load_checkpoint, place_of
from training.metrics import JsonLines, Metrics, TensorBoard, Together, WeightsAndBiases, progress_line
from training.optimiser import learning_rate
from training.ranks import Ranks, gathered
from training.rates import Rates
from training.recipes.recipe import Recipe
from training.run_settings import LoopSettings
from training.step import Step, StepRecord

_ASKED_EVERY_S = 0.05


def _nothing(line: str) -> None:
    """Says it to nobody."""


@torch.no_grad()
def validation_loss(module: nn.Module, batches: Sequence[Batch], ranks: Ranks) -> Tensor:
    """Weighted mean over the batches of all ranks, a scalar on the device; nothing is dropped.

    Timesteps and noise belong to the samples' streams. So the batches are made once, with one seed and
    one epoch, and two losses differ by the weights alone.
    """
    sums = torch.zeros(2, device=ranks.device)
    for batch in batches:
        moved = batch.to(ranks.device)
        losses = module(moved.fields, moved.streams, drop=False, **moved.counts)
        sums += torch.stack([(losses * moved.weight).sum(), moved.weight.sum()])
    total = ranks.sum(sums)
    return total[0] / total[1].clamp(min=1e-6)


class Training:
    """One run of one recipe in one folder; `run` goes on from the folder's last checkpoint.

    recipe       the method
    module       as `recipe.build` made it, on `ranks.device`; compiled or not
    batches      this rank's; their position is saved and restored
    validation   this rank's fixed batches; may be empty
    pictures     called with the module and the step every `pictures_every` steps, on all ranks
    stated       of the run as JSON, for its checkpoints
    compiled     whether blocks are compiled when the first batch comes
    say          told, by rank 0, a line for people at every read, and what takes time besides steps

    The folder gets `checkpoints/`, `metrics.jsonl` and `tensorboard/`. Raises CheckpointError where the
    last checkpoint is of another recipe or is damaged.
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
        pictures: Callable[[nn.Module, int], object] | None = None,
        *,
        stated: Mapping[str, Any] | None = None,
        compiled: bool = False,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.recipe, self.module, self.batches, self.settings = recipe, module, batches, settings
        self.ranks = ranks or Ranks()
        self.validation, self._pictures = validation, pictures
        self._stated, self._compiled = dict(stated or {}), compiled
        self._say = say if self.ranks.first else _nothing
        self.step = 0
        self._folder = folder
        self._checkpoints = settings.checkpoints or folder / "checkpoints"
        checkpoint = self._last_checkpoint()
        if checkpoint is not None:
            self._load_adapter(checkpoint)
        self._rates = Rates(module, self.ranks)
        self._one_step = Step(module, recipe.blocks(module), settings, self.ranks)
        if checkpoint is not None:
            self._go_on(checkpoint)
        self._record = StepRecord(self.ranks, settings.max_skipped)

    def run(self, stop: Callable[[], bool] = lambda: False) -> int:
        """Trains to the last step. Returns how many steps are done in all.

        Where `stop` says so on one rank, all ranks end a step that is under way, the same one, and write
        a checkpoint; each returns when it is whole. Raises NonFiniteError where more than
        `settings.max_skipped` steps in a row were not finite, and what the batches raise.
        """
        settings = self.settings
        metrics = self._open_metrics() if self.ranks.first else None
        checkpoints = CheckpointFolder(
            self._checkpoints,
            settings.keep_checkpoints,
            settings.keep_every,
            writes=self.ranks.first,
            saved=lambda name: self._say(f"saved {self._checkpoints}/{name}"),
        )
        stream = iter(self.batches)
        try:
            stopping = False
            while self.step < settings.steps and not stopping:
                to_stop = self.ranks.anyone(stop)
                self._rates.begin()
                batches = [next(stream) for _ in range(settings.accumulate)]
                self._rates.got(batches)
                if self._compiled:
                    self._say(f"step {self.step + 1}: compiling")
                    self._compiled = False
                self._one_step(self.step, batches, self._record)
                self.step += 1
                stopping = to_stop()
                last = self.step == settings.steps
                if stopping:
                    self._say(f"step {self.step}: told to stop, saves and ends")
                due = last or stopping or self.step % settings.checkpoint_every == 0
                if due or self.step % settings.read_every == 0:
                    self._report(metrics)
                if self.validation and (last or self.step % settings.validate_every == 0):
                    self._validate(metrics)
                every = settings.pictures_every
                if every and (last or self.step % every == 0):
                    self._make_pictures()
                if due:
                    self._save(checkpoints)
            self._wait_for(checkpoints)
        finally:
            checkpoints.close()
            if metrics is not None:
                metrics.close()
        return self.step

    def _open_metrics(self) -> Metrics:
        first = self.step + 1
        places: list[Metrics] = [
            JsonLines(self._folder / "metrics.jsonl", first),
            TensorBoard(self._folder / "tensorboard", first),
        ]
        if self.settings.wandb is not None:
            config = {
                "recipe": self.recipe.name,
                "method": self.recipe.settings.model_dump(mode="json"),
                "loop": self.settings.model_dump(mode="json"),
            }
            places.append(WeightsAndBiases(self.settings.wandb, self._folder.name, config))
        return Together(places)

    def _report(self, metrics: Metrics | None) -> None:
        """Waits for the device, raises if too many steps were not finite, writes what the steps gave."""
        results = self._record.read()
        rates = self._rates.since_last()
        for result in results:
            lr = learning_rate(self.settings.optimiser, result.step - 1, self.settings.steps)
            if result.skipped is None:
                values = {"loss": result.loss, "grad_norm": result.grad_norm, "lr": lr}
            else:
                values = {"skipped": 1.0, "lr": lr}
                self._say(f"{result.skipped}: skipped, no weight is changed by it")
            if metrics is not None:
                metrics.write(result.step, values | (rates if result is results[-1] else {}))
        losses = [result.loss for result in results if result.skipped is None]
        if results:
            mean = {"loss": sum(losses) / len(losses)} if losses else {}
            self._say(progress_line(self.step, self.settings.steps, {**mean, "lr": lr, **rates}))

    def _validate(self, metrics: Metrics | None) -> None:
        with self._one_step.autocast():
            loss = validation_loss(self.module, self.validation, self.ranks).item()
        if metrics is not None:
            metrics.write(self.step, {"validation_loss": loss})
        self._say(f"step {self.step}: validated, loss {loss:.4f}")
        self._rates.restart()

    def _make_pictures(self) -> None:
        """A grid that cannot be made is said, and ends no training."""
        if self._pictures is None:
            return
        with gathered(self.module):  # so nothing is sent inside, and a rank may fail alone
            try:
                self._pictures(self.module, self.step)
                self._say(f"step {self.step}: made pictures")
            except Exception as error:  # a sampler, a decoder or a disk raises anything
                self._say(f"step {self.step}: no pictures: {' '.join(str(error).split())[:300]}")
        self._rates.restart()

    def _wait_for(self, checkpoints: CheckpointFolder) -> None:
        """Until the last checkpoint is whole: where one rank ends, launchers soon end all others.

        Ranks ask one another for as long as it takes, which no time limit of a collective cuts off.
        """
        while self.ranks.world > 1 and self.ranks.anyone(lambda: checkpoints.is_writing)():
            sleep(_ASKED_EVERY_S)

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
            **self._stated,
        }
        checkpoints.save(self.step, tensors, record)

    def _last_checkpoint(self) -> Checkpoint | None:
        place = place_of(self._checkpoints)
        try:
            found = place.names() if self.ranks.first else []
        except OSError as error:
            raise CheckpointError(str(error)) from None
        name = self.ranks.gather(found[-1] if found else None)[0]  # all go on from the same one
        if name is None:
            return None
        self._resumed = f"{self._checkpoints}/{name}"
        with place.opened(name) as opened:
            return load_checkpoint(opened, self._resumed)

    def _load_adapter(self, checkpoint: Checkpoint) -> None:
        made_by = checkpoint.record.get("recipe")
        if made_by != self.recipe.name:
            raise CheckpointError(
                f"{self._resumed}: made by the recipe {made_by}, this one is {self.recipe.name}"
            )
        with _named(self._resumed):
            self.recipe.load_adapter(self.module, checkpoint.tensors["adapter"])

    def _go_on(self, checkpoint: Checkpoint) -> None:
        with _named(self._resumed):
            self._one_step.load_state(checkpoint.tensors)
        self.batches.load_state_dict(checkpoint.record["batches"])
        self.step = checkpoint.step


@contextmanager
def _named(checkpoint: str) -> Iterator[None]:
    """Errors of tensors that do not fit, as one line with the checkpoint's place."""
    try:
        yield
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{checkpoint}: {str(error).splitlines()[0]}") from None
