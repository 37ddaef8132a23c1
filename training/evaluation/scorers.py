"""All kinds of scores, by name. What is not asked for, or cannot be had, is said and never left out."""

from collections.abc import Callable

from training.evaluation.embedding_scores import Clip, ClipText, Dino, ImageSimilarity
from training.evaluation.scorer import MissingScorerError, Scorer
from training.evaluation.settings import ScorerSettings, VlmQuestion
from training.evaluation.vlm_scores import VlmScore


def scorers_of(settings: ScorerSettings, faces: Scorer | None) -> dict[str, Callable[[], Scorer]]:
    """{name: makes it, or raises MissingScorerError with the reason}. `faces` is made by the front door."""

    def clip_t() -> Scorer:
        return ClipText(Clip(_given(settings.clip, "scores.clip names no folder")))

    def clip_i() -> Scorer:
        clip = Clip(_given(settings.clip, "scores.clip names no folder"))
        return ImageSimilarity("clip_i", "CLIP, picture with reference", clip.pictures, clip.digest)

    def dino() -> Scorer:
        found = Dino(_given(settings.dino, "scores.dino names no folder"))
        return ImageSimilarity("dino", "DINO, picture with reference", found.pictures, found.digest)

    def face() -> Scorer:
        if not settings.face:
            raise MissingScorerError("scores.face is off")
        if faces is None:
            raise MissingScorerError("nobody here finds faces: it takes the command of the whole product")
        return faces

    def vlm(name: str, says: str, question: VlmQuestion | None) -> Scorer:
        if settings.vlm is None:
            raise MissingScorerError("scores.vlm names no endpoint")
        if question is None:
            raise MissingScorerError("scores.vlm asks no such question")
        return VlmScore(name, says, question, settings.vlm)

    identity = settings.vlm.identity if settings.vlm else None
    text = settings.vlm.text if settings.vlm else None
    return {
        "clip_t": clip_t,
        "clip_i": clip_i,
        "dino": dino,
        "face": face,
        "vlm_identity": lambda: vlm("vlm_identity", "VLM, identity and clothes, 0 to 10", identity),
        "vlm_text": lambda: vlm("vlm_text", "VLM, text, 0 to 10", text),
    }


def _given(folder: str | None, why: str) -> str:
    if folder is None:
        raise MissingScorerError(why)
    return folder
