"""The layers inside curation/: which files may import which."""

from collections.abc import Mapping
from fnmatch import fnmatch

LAYERS = ("core", "models", "phases", "run", "tools")
"""Each may import those before it, and itself."""

# Patterns of paths below curation/, of which the first that matches counts. A phase's folder holds the models
# that only this phase asks, beside its stages.
TABLE: tuple[tuple[str, str], ...] = (
    # What every part of curation stands on: settings, files of a run, rows and decisions, the engine.
    ("__init__.py", "core"),
    ("settings/*", "core"),
    ("errors.py", "core"),
    ("fingerprint.py", "core"),
    ("columns.py", "core"),
    ("storage.py", "core"),
    ("fragments.py", "core"),
    ("ledger.py", "core"),
    ("declared.py", "core"),
    ("meters.py", "core"),
    ("run_tables.py", "core"),
    ("run_folder.py", "core"),
    ("models.py", "core"),
    ("weights/__init__.py", "core"),
    ("weights/lock.py", "core"),
    ("ray_address.py", "core"),
    ("engine.py", "core"),
    ("stage.py", "core"),
    ("step.py", "core"),
    ("absolute.py", "core"),
    # What reads photos and what asks models: sources, decoders, backends, the VLM.
    ("sources/*", "models"),
    ("excluded/*", "models"),
    ("torch_device.py", "models"),
    ("backends.py", "models"),
    ("photos/decode*.py", "models"),
    ("photos/pixels.py", "models"),
    ("photos/perceptual_hash.py", "models"),
    ("people/protocols.py", "models"),
    ("people/atr.py", "models"),
    ("people/boxes.py", "models"),
    ("people/*_backends.py", "models"),
    ("people/face_onnx.py", "models"),
    ("people/face_opencv.py", "models"),
    ("people/blazepose.py", "models"),
    ("people/parse_geometric.py", "models"),
    ("people/segment_*.py", "models"),
    ("outfits/judge.py", "models"),
    ("captions/captioner.py", "models"),
    ("vlm/*", "models"),
    # The six phases: stages, and what runs them over fragments.
    ("photos/*", "phases"),
    ("people/*", "phases"),
    ("identities/*", "phases"),
    ("outfits/*", "phases"),
    ("captions/*", "phases"),
    ("packing/*", "phases"),
    # The run as a whole.
    ("pipeline_file.py", "run"),
    ("funnel.py", "run"),
    ("curate.py", "run"),
    ("progress.py", "run"),
    ("nothing_left.py", "run"),
    ("telemetry/*", "run"),
    # What people ask of a run, before and after it.
    ("status.py", "tools"),
    ("why.py", "tools"),
    ("retry.py", "tools"),
    ("plan/*", "tools"),
    ("report/*", "tools"),
    ("evaluation/*", "tools"),
    ("judging/*", "tools"),
    ("forgetting/*", "tools"),
    ("survey/*", "tools"),
    ("weights/*", "tools"),
)
PHASES = ("photos", "people", "identities", "outfits", "captions", "packing")
"""A phase imports nothing of a later one."""


def layer_of(file: str) -> str | None:
    """The layer of a file by its path from the root; None outside of curation/, or where no pattern fits."""
    if not file.startswith("curation/"):
        return None
    name = file.removeprefix("curation/")
    return next((layer for pattern, layer in TABLE if fnmatch(name, pattern)), None)


def imports_upwards(graph: Mapping[str, set[str]]) -> list[str]:
    """`file imports file` for each import from a layer into a later one, or from a phase into a later one."""
    found = []
    for file, imported in sorted(graph.items()):
        layer = layer_of(file)
        if layer is None:
            continue
        for other in sorted(imported):
            above = layer_of(other)
            if above is None:
                continue
            rises = LAYERS.index(above) > LAYERS.index(layer)
            phases = [name.split("/")[1] for name in (file, other)]
            both = layer == above == "phases"
            if rises or (both and PHASES.index(phases[1]) > PHASES.index(phases[0])):
                found.append(f"{file} ({layer}) imports {other} ({above})")
    return found


def without_layer(graph: Mapping[str, set[str]]) -> list[str]:
    """Files of curation/ that the table does not name."""
    return [file for file in sorted(graph) if file.startswith("curation/") and layer_of(file) is None]
