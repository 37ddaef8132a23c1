"""The loop: batches in, checkpoints and metrics out. It names no method."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from time import sleep
from typing import Any, Literal

import torch
from torch import Tensor, nn

from training.batch import Batch, Batches
from training.checkpoint import (
    Checkpoint,
    CheckpointError,
    CheckpointFolder,
    load_checkpoint,
    opened_once,
    place_of,
)
from training.metrics import Validated
from training.ranks import Ranks, gathered
from training.rates import Rates
from training.recipes.recipe import Recipe
from training.reports import Reports
from training.run_settings import LoopSettings
from training.step import Step, StepRecord

_ASKED_EVERY_S = 0.05
Weights = Literal["last", "averaged"]
MakePictures = Callable[[nn.Module, int, Weights], Mapping[str, Path]]


def _nothing(line: str) -> None:
    """Says it to nobody."""


@torch.no_grad()
def validation_loss(module: nn.Module, batches: Sequence[Batch], ranks: Ranks) -> Tensor:
    """Weighted mean over the batches of all ranks, a scalar on the device; nothing is dropped. NaN where no
    sample counts.

    Timesteps and noise belong to the samples' streams. So the batches are made once, with one seed and
    one epoch, and two losses differ by the weights alone.
    """
    sums = torch.zeros(2, device=ranks.device)
    for batch in batches:
        moved = batch.to(ranks.device)
        losses = module(moved.fields, moved.streams, drop=False, **moved.counts)
        sums += torch.stack([(losses * moved.weight).sum(), moved.weight.sum()])
    total = ranks.sum(sums)
    return total[0] / total[1]


class Training:
    """One run of one recipe in one folder; `run` goes on from the folder's last checkpoint.

    recipe       the method
    module       as `recipe.build` made it, on `ranks.device`; compiled or not
    batches      this rank's; their position is saved and restored
    validation   this rank's fixed batches; may be empty
    validation_of   checksum of the dataset that they are of
    pictures     called with the module, the step and whose weights it has ("last" or "averaged") every
                 `pictures_every` steps, on all ranks; returns the files that it wrote, by name
    picture_weights   whose weights pictures are made of, one after the other
    config       of the run as text, which goes into its folder as config.yaml and where metrics go
    stated       of the run as JSON, for its checkpoints
    compiled     whether blocks, and on a GPU the update, are compiled when the first batch comes
    say          told, by rank 0, a line for people at every read, and what takes time besides steps

    stopped   why the run ended before its last step by itself, once `run` has returned; else None

    The folder gets `config.yaml`, `checkpoints/`, `metrics.jsonl` and `tensorboard/`. Raises CheckpointError
    where the last checkpoint is of another recipe or is damaged.
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
        pictures: MakePictures | None = None,
        *,
        validation_of: str | None = None,
        picture_weights: Sequence[Weights] = ("last",),
        config: str | None = None,
        stated: Mapping[str, Any] | None = None,
        compiled: bool = False,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.recipe, self.module, self.batches, self.settings = recipe, module, batches, settings
        self.ranks = ranks or Ranks()
        self.validation, self._pictures = validation, pictures
        self._picture_weights, self._config = picture_weights, config
        self._stated, self._compiled = dict(stated or {}), compiled
        self._say = say if self.ranks.first else _nothing
        self.step = 0
        self.stopped: str | None = None
        # Those that count may be fewer at each start: a read may fail once.
        own = torch.tensor(float(sum(map(len, validation))), device=self.ranks.device)
        validated = Validated(checksum=validation_of, samples=int(self.ranks.sum(own)))
        self._reports = Reports(settings, self.ranks, self._say, validated)
        self._folder = folder
        self._checkpoints = settings.checkpoints or folder / "checkpoints"
        checkpoint = self._last_checkpoint()
        if checkpoint is not None:
            self._load_adapter(checkpoint)
        self._rates = Rates(module, self.ranks)
        # On a GPU only: a CPU gains little, and inductor's cache on disk (torch 2.13) does not know sets of
        # instructions: another processor's code is taken from it, and leaves half of the elements alone.
        backend = "inductor" if compiled and self.ranks.device.type == "cuda" else None
        self._one_step = Step(module, recipe.blocks(module), settings, self.ranks, backend=backend)
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
        self._open_reports()
        checkpoints = CheckpointFolder(
            self._checkpoints,
            settings.keep_checkpoints,
            None if settings.keep_every is None else int(settings.keep_every),
            writes=self.ranks.first,
            saved=lambda name: self._say(f"saved {self._checkpoints}/{name}"),
            keep_best=settings.keep_best,
        )
        stream = iter(self.batches)
        try:
            stopping = False
            while self.step < settings.steps and not stopping and not self._reports.patience_is_over:
                to_stop = self.ranks.anyone(stop)
                self._rates.begin()
                batches = [next(stream) for _ in range(settings.accumulate)]
                self._reports.tally(batches)
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
                saves = settings.falls_on("checkpoint_every", self.step)
                validates = last or settings.falls_on("validate_every", self.step)
                validates = validates or (saves and settings.keep_best)
                validates = validates and bool(self.validation)
                # A validation may end the run: what the steps before it gave is read by then.
                if last or stopping or saves or validates or self.step % settings.read_every == 0:
                    self._report()
                else:
                    self._reports.alive(self.step)
                if validates:
                    self._validate()
                ends = last or stopping or self._reports.patience_is_over
                if settings.pictures_every and (ends or settings.falls_on("pictures_every", self.step)):
                    self._make_pictures()
                if ends or saves:
                    self._save(checkpoints)
            self._wait_for(checkpoints)
        finally:
            checkpoints.close()
            self._reports.close()
        if self._reports.patience_is_over and self.step < settings.steps:
            without = self._reports.validated.without_gain
            self.stopped = f"validation_loss has not fallen in {without} validations"
        return self.step

    def _open_reports(self) -> None:
        about = {
            "recipe": self.recipe.name,
            "method": self.recipe.settings.model_dump(mode="json"),
            "loop": self.settings.model_dump(mode="json"),
            **self._stated,
        }
        self._reports.open(self._folder, self.step + 1, self._config, about)

    def _report(self) -> None:
        """Waits for the device, raises if too many steps were not finite, writes what the steps gave."""
        results = self._record.read()
        rates = self._rates.since_last()
        self._reports.steps(self.step, results, rates, self._record.read_by_time())

    def _validate(self) -> None:
        # Whatever swaps weights does so before they are gathered.
        with self._one_step.ema.measured(), gathered(self.module), self._one_step.autocast():
            loss = validation_loss(self.module, self.validation, self.ranks).item()
        # To the bit the same on all ranks, as what follows from it must be.
        self._reports.validation(self.step, self.ranks.gather(loss)[0])
        self._rates.restart()

    def _make_pictures(self) -> None:
        """A grid that cannot be made is said, and ends no training."""
        if self._pictures is None:
            return
        step = self._one_step
        # A schedule-free run is judged by its averages, and its parameters are of no use to anyone.
        of: Sequence[Weights] = ["averaged"] if step.ema.are_made else self._picture_weights
        for weights in of:
            swapped = step.averaged() if weights == "averaged" else nullcontext()
            # Gathered, so that ranks draw each for itself; and in what it is trained in.
            with swapped, gathered(self.module), step.autocast():
                try:
                    files = self._pictures(self.module, self.step, weights)
                    self._reports.pictures(self.step, files, weights)
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
            **self._reports.state(self.step),
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
        with opened_once(place, name, self.ranks) as opened:
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
        self._reports.load_state(checkpoint.record)
        self.step = checkpoint.step


@contextmanager
def _named(checkpoint: str) -> Iterator[None]:
    """Errors of tensors that do not fit, as one line with the checkpoint's place."""
    try:
        yield
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{checkpoint}: {str(error).splitlines()[0]}") from None
