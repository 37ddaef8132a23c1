"""The stages of the phase `people`, in the order in which a photo and its people meet them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from curation.declared import Declared
from curation.meters import StageClock
from curation.people.age import Age
from curation.people.appearance import Appearance
from curation.people.chain import ChainContext, ChainStage
from curation.people.detect import OF_PHOTO, Detect, Detected
from curation.people.face import FaceStage
from curation.people.full_body import FullBody
from curation.people.lone_faces import DetectWithFaces
from curation.people.nsfw import Nsfw
from curation.people.person_stage import PersonStage
from curation.people.photo_stage import PhotoStage
from curation.people.regions import Regions
from curation.people.segment import Segment
from curation.people.someone_left import SomeoneLeft
from curation.settings.people import PeopleSettings
from curation.stage import Stage, decide_stages, run_stages

STAGES: tuple[type[Declared], ...] = (
    Nsfw,
    DetectWithFaces,
    Detected,
    FaceStage,
    Age,
    FullBody,
    Segment,
    Regions,
    Appearance,
    SomeoneLeft,
)


def measuring_stages(people: PeopleSettings) -> list[type[ChainStage]]:
    """The stages of a pipeline that measure, and remember what."""
    chain = (stage for stage in STAGES if issubclass(stage, ChainStage) and len(stage.fills))
    return [stage for stage in chain if stage.settings_in(people) is not None]


Runs = Callable[[Sequence[Stage], pa.Table], pa.Table]
"""Runs stages over a table."""


@dataclass(frozen=True)
class PeopleChain:
    """The chain of a pipeline: each stage whose settings it has; a model is loaded when it is first asked.

    on_photos  stages of photos, the last of them `detect`, the step from photos to people
    on_people  stages of people; behind them `left`, the step back
    clock      notes how long the two steps take
    """

    on_photos: list[ChainStage]
    detect: Detect
    on_people: list[ChainStage]
    left: SomeoneLeft
    clock: StageClock = field(default_factory=StageClock)

    @classmethod
    def of(cls, people: PeopleSettings, chain: ChainContext) -> "PeopleChain":
        """The chain with the phase's settings."""
        stages = [stage for stage in STAGES if issubclass(stage, ChainStage)]
        refuse_misplaced(stages)
        made = [stage for stage in (stage.of(people, chain) for stage in stages) if stage is not None]
        (at,) = (place for place, stage in enumerate(made) if isinstance(stage, Detect))
        detect, left = made[at], made[-1]
        assert isinstance(detect, Detect)
        assert isinstance(left, SomeoneLeft)
        return cls(made[: at + 1], detect, made[at + 1 : -1], left)

    @property
    def stages(self) -> list[ChainStage]:
        """All stages in their order."""
        return [*self.on_photos, *self.on_people, self.left]

    def __call__(self, photos: pa.Table, run: Runs = run_stages) -> tuple[pa.Table, pa.Table]:
        """(photos, people): photos in their order with what was ruled on them, and the people in theirs."""
        photos, people = self.rule(*self.detect.people(run(self.on_photos, photos)), run)
        return photos, people.drop_columns(OF_PHOTO)

    def decide(self, photos: pa.Table, people: pa.Table) -> tuple[pa.Table, pa.Table]:
        """(photos, people) ruled anew: photos as they came in, measured, and people with their `OF_PHOTO`."""
        return self.rule(decide_stages(self.on_photos, photos), people, decide_stages)

    def rule(self, photos: pa.Table, people: pa.Table, run: Runs) -> tuple[pa.Table, pa.Table]:
        """(photos, people) from detection on; leaves out people whose photo is out."""
        with self.clock.working(self.detect.name, 0):
            photos, people = self.detect.rule(photos, people)
        people = run(self.on_people, people)
        with self.clock.working(self.left.name, photos.num_rows):
            return self.left.rule(photos, people), people


def refuse_misplaced(stages: Sequence[type[ChainStage]]) -> None:
    """Raises TypeError for a `PhotoStage` behind detection, since its photos' people would stay in, and for a
    `PersonStage` before it."""
    detection = stages.index(DetectWithFaces)
    for place, stage in enumerate(stages):
        if issubclass(stage, PhotoStage) and place > detection:
            raise TypeError(f"stage {stage.name}: a PhotoStage must stand before detection in STAGES")
        if issubclass(stage, PersonStage) and place < detection:
            raise TypeError(f"stage {stage.name}: a PersonStage must stand behind detection in STAGES")
