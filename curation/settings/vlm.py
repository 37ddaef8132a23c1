"""Settings of a vision-language model as judge of outfits and as captioner: served by vLLM, or in process."""

from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.fields import FieldInfo

from curation.settings.base import Settings, resource, threshold

START_S = 900.0
"""For a server that is started: on two busy cores a small vLLM took 358 s to get ready."""

CanvasPx = Annotated[list[Annotated[int, Field(ge=28, le=4096)]], Field(min_length=2, max_length=2)]


class VlmSettings(Settings):
    """What judge and captioner share, whichever way the model runs.

    The keys of the server are accepted by both ways, so that `backend` alone chooses between them.
    """

    model: str = Field(description="name of a model card: a folder as transformers writes it")
    canvas_px: CanvasPx = Field(description="[width, height] of each picture that the model is shown")
    background: Literal["keep", "grey"] = Field(description="grey: pixels outside the mask become grey")
    margin: float = Field(ge=0, le=2, description="share of the box's sides by which it is grown")
    max_tokens: int = Field(ge=1, le=1024, description="tokens of an answer at most")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="of the weights in memory; auto: as stored, but vLLM takes float32 as bfloat16"
    )

    endpoint: str | None = resource(
        None, pattern=r"^https?://[^\s]+$", description="URL of a running server; else one is started"
    )
    served_name: str | None = resource(
        None, description="the model's name on a given server, if it is not the card's"
    )
    in_flight: int = resource(64, ge=1, le=4096, description="requests at a time, of each worker")
    timeout_s: float = resource(120, gt=0, description="a request without an answer by then is sent again")
    retries: int = resource(
        3,
        ge=0,
        le=20,
        description="times that a request is sent again: no connection, timeout, 5xx, 429, bad answer",
    )
    reconnect_s: float = resource(
        START_S, ge=0, description="how long a server that does not answer /health is waited for"
    )
    start_s: float = resource(START_S, gt=0, description="time for a server that is started to get ready")
    context_tokens: int = resource(
        4096, ge=64, description="of prompt, pictures and answer; less if the model has less"
    )
    tensor_parallel: int = resource(1, ge=1, le=64, description="GPUs that share the model")
    server_args: list[str] = resource([], description="further arguments of vLLM's server, as they are")
    batch_size: int = resource(8, ge=1, le=1024, description="transformers: questions in one pass")


def _like(name: str, default: Any) -> Any:
    """A field as VlmSettings has it, with a default."""
    return FieldInfo.merge_field_infos(VlmSettings.model_fields[name], default=default)


class VlmJudgeSettings(VlmSettings):
    """Asks whether two photos show the same full-body appearance."""

    prompt: Literal["outfit-exact", "outfit-brief"] = Field(
        description="text of the question; outfit-exact may be answered with unclear"
    )
    canvas_px: CanvasPx = _like("canvas_px", [448, 896])
    background: Literal["keep", "grey"] = _like("background", "grey")
    margin: float = _like("margin", 0.0)
    max_tokens: int = _like("max_tokens", 24)
    cut: float = threshold(0.5, ge=0, le=1, description="least p(yes) / (p(yes) + p(no)) for 'same'")
    regions: bool = threshold(
        False, description="the strategy `clusters` asks of open pairs region by region too: five questions"
    )


class VlmCaptionerSettings(VlmSettings):
    """Asks for a sentence on pose, expression, action and surroundings."""

    prompt: Literal["paper-caption", "caption-brief"] = Field(description="text of the question")
    canvas_px: CanvasPx = _like("canvas_px", [672, 672])
    background: Literal["keep", "grey"] = _like("background", "keep")
    margin: float = _like("margin", 0.25)
    max_tokens: int = _like("max_tokens", 160)


class VllmJudgeSettings(VlmJudgeSettings):
    """The judge behind a vLLM server."""

    backend: Literal["vllm"] = "vllm"


class TransformersJudgeSettings(VlmJudgeSettings):
    """The judge in the worker's own process: where vLLM cannot start."""

    backend: Literal["transformers"] = "transformers"


class VllmCaptionerSettings(VlmCaptionerSettings):
    """The captioner behind a vLLM server."""

    backend: Literal["vllm"] = "vllm"


class TransformersCaptionerSettings(VlmCaptionerSettings):
    """The captioner in the worker's own process: where vLLM cannot start."""

    backend: Literal["transformers"] = "transformers"
