"""`persona shards precompute`: latents are those of the trainer, are of one VAE, and go where photos go."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.numpy import load

from persona import main
from shards.reading.folder import DatasetFolder
from shards.tools.build_index import build_index
from shards.tools.copying import copy_samples
from shards.tools.forget import forget
from shards.tools.forget_plan import IdsToForget
from shards.tools.merge import merge
from shards.tools.split import split_by_identity
from shards.tools.verify import verify
from tests.drawn_foreign import write_img2dataset
from tests.drawn_pairs import photo_id_of, write_people
from tests.drawn_shards import bytes_of, write_dataset
from tests.drawn_training import SDXL, SETTINGS, built, tiny
from training.batch import Batch
from training.checkpoint import checkpoints_in
from training.data import open_data
from training.ranks import Ranks
from training.recipes import recipe_of
from training.run_settings import DataSettings

SIZES = [(64, 64), (64, 96), (96, 64)]
SHAPES = ((96, 80), (60, 80), (96, 56))
BUCKETS = "data.buckets=[[64, 64], [64, 96], [96, 64]]"


def persona(*words: Any) -> int:
    return main([str(word) for word in words])


def config(folder: Path, **method: Any) -> Path:
    file = folder / "config.yaml"
    settings = {
        "recipe": "visual_persona",
        "method": {**SETTINGS["visual_persona"], "denoising": {"person_weight": 2.0}, **method},
        "data": {"height_px": 64, "width_px": 64, "batch": 2, "buckets": SIZES, "bucket_run": 4},
        "loop": {"steps": 3, "precision": "fp32", "ema_decay": 0.5},
        "compile": False,
    }
    file.write_text(yaml.safe_dump(json.loads(json.dumps(settings))))
    return file


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("dataset") / "shards", SHAPES, max_samples=5)


@pytest.fixture(scope="module")
def latents(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("latents")
    return precomputed(dataset, where / "shards", where)


def precomputed(dataset: Path, out: Path, where: Path, *words: Any) -> Path:
    command = ["shards", "precompute", dataset, "--config", config(where), "--out", out, "--max-samples", 5]
    assert persona(*command, "--batch", 3, "--threads", 2, *words) == 0
    return out


def members(folder: Path, ending: str = "") -> dict[str, bytes]:
    opened = DatasetFolder(str(folder))
    samples = map(opened.read, range(len(opened)))
    return {f"{s.key}.{name}": data for s in samples for name, data in s.members.items() if ending in name}


def batches(folder: Path, number: int, latents: str = "auto", **method: Any) -> tuple[Any, list[Batch]]:
    """The recipe and the first batches of a run on this dataset."""
    settings = {**SETTINGS["visual_persona"], "denoising": {"person_weight": 2.0}, **method}
    asked = {"height_px": 64, "width_px": 64, "batch": 3, "buckets": SIZES, "bucket_run": 6, "seed": 4}
    data = DataSettings.model_validate({**asked, "latents": latents})
    run = open_data(data, recipe_of("visual_persona", settings), Ranks(), str(folder))
    stream = run.batches(1000)
    return run.recipe, [next(stream) for _ in range(number)]


def test_every_photo_has_the_latent_of_its_size_and_nothing_else_changed(
    dataset: Path, latents: Path
) -> None:
    before, after = members(dataset), members(latents)
    made = {name: data for name, data in after.items() if name.endswith(".latent")}
    assert {name: data for name, data in after.items() if name not in made} == before
    assert {name.removesuffix("latent") + "png" for name in made} == {
        n for n in before if n[-7:-4].isdecimal()
    }
    vae = tiny("visual_persona").base.vae
    for name, data in made.items():
        tensors = load(data)
        record = json.loads(before[name.replace(".latent", ".json")])
        height, width = (8 * side for side in tensors["mean"].shape[1:])
        assert (height, width) == min(
            SIZES, key=lambda size: abs(np.log(size[1] / size[0] * record["height"] / record["width"]))
        )
        x0, y0, x1, y1 = tensors["source"]
        assert (x1 - x0) / (y1 - y0) == pytest.approx(width / height, rel=0.05)
        assert max((x1 - x0) / record["width"], (y1 - y0) / record["height"]) == pytest.approx(1, abs=0.02)
        assert vae.channels == tensors["std"].shape[0]
    assert verify(str(latents)).problems == []


def test_the_dataset_says_which_vae_made_its_latents_and_how(latents: Path, capsys) -> None:
    about = json.loads((latents / "dataset.json").read_text())
    stated = about["latents"]
    assert stated | {"sha256": ""} == {
        "vae": "random weights",
        "sha256": "",
        "scaling_factor": 0.13025,
        "channels": 4,
        "sizes": [list(size) for size in SIZES],
        "precision": "fp32",
        "dtype": "float16",
        "moments": "mean and std",
    }
    assert about["lineage"]["operation"] == "precompute"
    assert about["lineage"]["latents"] == stated
    assert persona("shards", "stats", latents) == 0
    told = capsys.readouterr().out
    assert "NNN.latent" in told
    assert stated["sha256"] in told


def test_equal_input_gives_equal_bytes_also_behind_a_kill(
    dataset: Path, latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(copy: Any, out: str, max_samples: int, max_bytes: int, progress: Any) -> Any:
        def stop(done: int, of: int) -> None:
            assert of == 3
            if done == 2:
                raise KeyboardInterrupt

        return copy_samples(copy, out, max_samples, max_bytes, stop)

    out = tmp_path / "shards"
    with monkeypatch.context() as patch:
        patch.setattr("training.precompute.copy_samples", killed)
        words = ["shards", "precompute", dataset, "--config", config(tmp_path), "--out", out]
        assert persona(*words, "--max-samples", 5, "--batch", 3) == 130
    assert not (out / "dataset.json").exists()
    whole = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert len(whole) == 2
    precomputed(dataset, out, tmp_path)
    assert bytes_of(out) == bytes_of(latents)
    assert {shard: (out / shard).stat().st_mtime_ns for shard in whole} == whole


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 1e-3)])
def test_the_loss_is_that_of_encoding_online(
    dtype: str, tolerance: float, dataset: Path, latents: Path, tmp_path: Path
) -> None:
    folder = (
        latents if dtype == "float16" else precomputed(dataset, tmp_path / "l", tmp_path, "--dtype", dtype)
    )
    method: dict[str, Any] = {"stage": "shared_queries", "reconstruction": 0.5}
    online, pictures = batches(dataset, 8, **method)
    cached, drawn = batches(folder, 8, **method)
    modules = built(online), built(cached)
    modules[1].load_state_dict(modules[0].state_dict(), strict=False)
    assert modules[1].denoiser.vae is None
    for one, other in zip(pictures, drawn, strict=True):
        assert one.keys == other.keys
        assert set(one.fields) - set(other.fields) == {"target"}
        for name in one.fields.keys() & other.fields.keys():
            assert torch.equal(one.fields[name], other.fields[name]), name
        with torch.no_grad():
            a, b = (
                module(batch.fields, batch.streams)
                for module, batch in zip(modules, (one, other), strict=True)
            )
        assert b.tolist() == pytest.approx(a.tolist(), rel=tolerance)


def test_training_reads_latents_and_resumes(latents: Path, tmp_path: Path) -> None:
    words = [
        "train",
        config(tmp_path),
        "--shards",
        latents,
        "--validation",
        latents,
        "--out",
        tmp_path / "run",
    ]
    assert persona(*words) == 0
    assert persona(*words, "--set", "loop.steps=5") == 0
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert persona(*words[:-1], tmp_path / "whole", "--set", "loop.steps=5") == 0
    whole = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    curves = [[line["loss"] for line in curve if "loss" in line] for curve in (lines, whole)]
    assert curves[0] == curves[1]
    assert len(curves[0]) == 5
    record = json.loads((checkpoints_in(tmp_path / "run/checkpoints")[-1] / "checkpoint.json").read_text())
    assert record["recipe_settings"]["denoising"]["cached_latents"] is True


def test_latents_of_another_vae_are_refused_in_one_line(latents: Path, tmp_path: Path, capsys) -> None:
    other = config(tmp_path, sdxl={**SDXL, "latent_scale": 0.5})
    for words in ([], ["--set", "method.denoising.cached_latents=true"]):
        assert persona("train", other, "--shards", latents, "--out", tmp_path / "run", *words) == 2
        told = capsys.readouterr().err
        assert "its latents are of the VAE random weights" in told
        assert told.count("\n") == 1
    words = ["--set", "data.latents=never"]
    assert persona("train", other, "--shards", latents, "--out", tmp_path / "run", *words) == 0


def test_latents_of_other_sizes_are_not_used_and_that_is_said(
    dataset: Path, latents: Path, tmp_path: Path, capsys, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["train", config(tmp_path), "--out", tmp_path / "run", "--set", "data.buckets=one"]
    assert persona(*words, "--shards", latents) == 0
    assert "photos are encoded as they come" in caplog.text
    always = ["--set", "data.latents=always"]
    assert persona(*words, "--shards", latents, *always) == 2
    assert "has latents of 64×64, 64×96, 96×64 px, targets are of 64×64" in capsys.readouterr().err
    assert persona(*words, "--shards", dataset, *always) == 2
    assert "has no latents" in capsys.readouterr().err


def test_a_forgotten_photo_takes_its_latent_along(dataset: Path, tmp_path: Path) -> None:
    folder = precomputed(dataset, tmp_path / "shards", tmp_path)
    before = members(folder, ".latent")
    forget(str(folder), IdsToForget(photos=frozenset({photo_id_of(1, 0)})))
    after = members(folder, ".latent")
    key = f"{1:016x}-a"
    assert [after[f"{key}.{n:03d}.latent"] for n in range(2)] == [
        before[f"{key}.{n:03d}.latent"] for n in (1, 2)
    ]
    assert len(after) == len(before) - 1
    assert verify(str(folder)).problems == []
    assert "latents" in json.loads((folder / "dataset.json").read_text())


def test_parts_keep_their_latents_and_merge_refuses_others(
    dataset: Path, latents: Path, tmp_path: Path
) -> None:
    parts = [str(tmp_path / name) for name in ("a", "b")]
    split_by_identity(str(latents), parts, [0.5, 0.5])
    merge(parts, str(tmp_path / "whole"))
    stated = json.loads((latents / "dataset.json").read_text())["latents"]
    assert json.loads((tmp_path / "whole/dataset.json").read_text())["latents"] == stated
    assert members(tmp_path / "whole") == members(latents)
    split_by_identity(str(dataset), [str(tmp_path / name) for name in ("c", "d")], [0.5, 0.5])
    with pytest.raises(ValueError, match="have not the same latents"):
        merge([parts[0], str(tmp_path / "d")], str(tmp_path / "mixed"))


def test_other_latents_replace_those_that_are_there(latents: Path, tmp_path: Path) -> None:
    folder = precomputed(latents, tmp_path / "shards", tmp_path, "--mean-only", "--size", "64x64")
    assert verify(str(folder)).problems == []
    for name, data in members(folder, ".latent").items():
        assert sorted(load(data)) == ["mean", "source"], name
        assert load(data)["mean"].shape == (4, 8, 8)
    assert len(members(folder)) == len(members(latents))


def test_a_photo_that_cannot_be_read_has_no_latent_and_stops_nothing(
    dataset: Path, tmp_path: Path, capsys
) -> None:
    groups = {s.key: dict(s.members) for s in map(DatasetFolder(str(dataset)).read, range(6))}
    broken = next(iter(groups))
    groups[broken]["001.png"] = groups[broken]["001.png"][:200]
    folder = write_dataset(tmp_path / "broken", groups)
    out = precomputed(folder, tmp_path / "shards", tmp_path, "--json")
    told = capsys.readouterr()
    assert json.loads(told.out)["without_latent"] == 1
    assert f"no latent: {broken}.001: " in told.err
    assert f"{broken}.001.latent" not in members(out)
    assert persona("train", config(tmp_path), "--shards", out, "--out", tmp_path / "run") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "precompute needs --config NAME, or --vae FOLDER and --size"),
        (["--vae", "/nowhere", "--size", "64x64"], "/nowhere"),
        (["--config", "best"], "unknown config 'best'"),
        (["--config", "visual_persona_demo", "--size", "65x64"], "--size 65x64: must be HEIGHTxWIDTH"),
        (["--config", "visual_persona_demo", "--batch", "0"], "at least 1"),
        (["--set", "data.batch=1"], "--set changes a config"),
    ],
)
def test_bad_usage_is_one_line_and_writes_nothing(
    words: list[str], message: str, dataset: Path, tmp_path: Path, capsys
) -> None:
    assert persona("shards", "precompute", dataset, "--out", tmp_path / "out", *words) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_pictures_and_latents_of_a_turned_photo_are_cut_alike(tmp_path: Path) -> None:
    """A photo that lies on its side by EXIF, as JPEG: decoded as the trainer decodes it."""
    folder = write_people(tmp_path / "plain", SHAPES)
    groups = {s.key: dict(s.members) for s in map(DatasetFolder(str(folder)).read, range(4))}
    for named in groups.values():
        for suffix in [name for name in named if name.endswith(".png") and "regions" not in name]:
            upright = Image.open(io.BytesIO(named[suffix]))
            exif = Image.Exif()
            exif[0x0112] = 6
            sink = io.BytesIO()
            upright.transpose(Image.Transpose.ROTATE_90).save(sink, "JPEG", exif=exif)
            named[f"{suffix[:3]}.jpg"] = sink.getvalue()
            record = json.loads(named[f"{suffix[:3]}.json"])
            named[f"{suffix[:3]}.json"] = json.dumps({**record, "orientation": 6}).encode()
            del named[suffix]
    turned = write_dataset(tmp_path / "turned", groups)
    out = precomputed(turned, tmp_path / "latents", tmp_path)
    _, pictures = batches(turned, 3)
    _, drawn = batches(out, 3)
    for one, other in zip(pictures, drawn, strict=True):
        assert torch.equal(one.fields["target_cut"], other.fields["target_cut"])
        assert torch.equal(one.fields["person"], other.fields["person"])


def test_photos_of_others_have_no_latents_and_the_command_says_so(tmp_path: Path, capsys: Any) -> None:
    folder = write_img2dataset(tmp_path / "data")
    build_index(str(folder))
    words = ["shards", "precompute", folder, "--config", config(tmp_path), "--out", tmp_path / "out"]
    assert persona(*words) == 1
    told = capsys.readouterr().err
    assert "sample 000000000 has jpg, json, txt" in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()
