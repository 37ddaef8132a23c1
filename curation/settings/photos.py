"""Settings of the phase `photos`: which files are photos that may be used, each of them once."""

from pydantic import Field

from curation.settings.base import Resources, Settings, path, resource, threshold


class ScreenSettings(Settings):
    """What a photo must be. All are thresholds on stored measurements."""

    formats: list[str] = threshold(["jpeg", "png", "webp"], description="of jpeg, png, webp")
    min_side_px: int = threshold(256, ge=1, description="shorter side, upright")
    max_pixels: int = threshold(
        64_000_000,
        ge=1,
        le=400_000_000,
        description="width × height; larger ones are never decoded",
    )
    max_file_mib: float = threshold(64, gt=0, le=1024, description="larger files are never read")
    animated: bool = threshold(False, description="whether files of several frames are let in")
    licences: list[str] | None = threshold(
        None, description="allow-list for the column licence; unset lets all in, also none stated"
    )
    consent: bool = threshold(False, description="only photos whose column consent says yes")
    opt_out: str | None = path(
        None,
        moves="decisions",
        description="text file, a line each: sha256:HEX, phash:HEX (16 digits), url:URL or id:NAME",
    )
    opt_out_max_bits: int = threshold(6, ge=0, le=16, description="Hamming distance to a phash:HEX")
    address_query: bool = threshold(
        False,
        description="whether what follows ? counts when addresses are held against opt-outs and tombstones",
    )
    forgotten: str | None = path(
        None,
        moves="nothing",
        description="folder of tombstones; none: $PERSONA_FORGOTTEN, else `forgotten` beside this file",
    )
    forgotten_max_bits: int = threshold(
        6, ge=0, le=16, description="Hamming distance to a forgotten picture: copies of it stay out too"
    )


class RightsSettings(Settings):
    """What photos say of themselves, in their own bytes and in the headers of their server."""

    mining: bool = threshold(
        True,
        description="whether photos that reserve mining or training, by PLUS, TDM, C2PA or noai, stay out",
    )
    synthetic: bool = threshold(
        True, description="whether photos stay out that say a model made them, or a part of them (IPTC, C2PA)"
    )
    broken: bool = threshold(
        True,
        description="whether photos stay out whose Content Credentials are damaged or of another picture",
    )
    credentials: bool = Field(True, description="whether Content Credentials are read (package c2pa-python)")


class DuplicateSettings(Settings):
    """Copies of one photo: the largest stays, the others point at it."""

    near: bool = threshold(True, description="also find resized and re-encoded copies")
    max_bits: int = threshold(6, ge=0, le=10, description="Hamming distance of two 64-bit perceptual hashes")


class DecoderSettings(Settings):
    """Where photos of strangers are decoded, and what one of them may take."""

    apart: bool = resource(True, description="in a process of its own beside each worker")
    max_cpu_s: float = resource(60, gt=0, le=3600, description="of one photo; then it is failed")
    max_gib: float = resource(4, ge=1, le=1024, description="data that the process may hold; then failed")


class PhotosSettings(Settings):
    """The phase `photos`."""

    screen: ScreenSettings = ScreenSettings()
    rights: RightsSettings = RightsSettings()
    decoder: DecoderSettings = resource(DecoderSettings())
    duplicates: DuplicateSettings = DuplicateSettings()
    resources: Resources = resource(Resources())
