"""The stages of the phase `people`, in the order in which a photo and its people meet them."""

from collections.abc import Sequence

from curation.declared import Declared
from curation.people.age import Age
from curation.people.appearance import Appearance
from curation.people.chain import ChainContext, ChainStage
from curation.people.detect import Detected
from curation.people.face import FaceStage
from curation.people.full_body import FullBody
from curation.people.lone_faces import DetectWithFaces
from curation.people.nsfw import Nsfw
from curation.people.photo_stage import PhotoStage
from curation.people.regions import Regions
from curation.people.segment import Segment
from curation.people.someone_left import SomeoneLeft
from curation.settings.people import PeopleSettings

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


def people_stages(people: PeopleSettings, chain: ChainContext) -> list[ChainStage]:
    """The chain: each stage whose settings the pipeline has; a model is loaded when it is first asked."""
    stages = [stage for stage in STAGES if issubclass(stage, ChainStage)]
    refuse_late_photo_stages(stages)
    made = (stage.of(people, chain) for stage in stages)
    return [stage for stage in made if stage is not None]


def refuse_late_photo_stages(stages: Sequence[type[ChainStage]]) -> None:
    """Raises TypeError for a `PhotoStage` behind detection: its photos go out, their people would stay in."""
    detection = stages.index(DetectWithFaces)
    late = [stage.name for stage in stages[detection:] if issubclass(stage, PhotoStage)]
    if late:
        raise TypeError(f"stage {late[0]}: a PhotoStage must stand before detection in STAGES")
