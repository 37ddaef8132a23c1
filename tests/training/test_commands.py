"""`persona train` and `persona export`: from shards to a published file, and one line for what is wrong."""

import json
import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from persona import main
from shards.reading.folder import DatasetFolder
from tests.drawn_pairs import write_people
from tests.drawn_shards import write_dataset
from tests.drawn_training import SETTINGS
from training.checkpoint import checkpoints_in, load_checkpoint
from training.recipes import recipe_of
from training.run_settings import named_configs, read_settings


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("dataset") / "shards")


def persona(*words: Any) -> int:
    return main([str(word) for word in words])


def config(folder: Path, recipe: str = "visual_persona", **method: Any) -> Path:
    file = folder / f"{recipe}.yaml"
    settings = {
        "recipe": recipe,
        "method": {**SETTINGS[recipe], **method},
        "data": {"height_px": 64, "width_px": 64, "batch": 2, "validation_batches": 2},
        "loop": {"steps": 3, "precision": "fp32", "ema_decay": 0.5},
        "compile": False,
    }
    file.write_text(yaml.safe_dump(settings))
    return file


KEYS = {
    "visual_persona": "ip_adapter.1.to_k_ip.weight",
    "ip_adapter": "ip_adapter.1.to_k_ip.weight",
    "flux2_reference": "transformer.transformer_blocks.0.attn.to_k.lora_B.weight",
}


@pytest.mark.parametrize("recipe", KEYS)
def test_a_run_is_trained_exported_and_proven(recipe: str, dataset: Path, tmp_path: Path, capsys) -> None:
    out, weight = tmp_path / "run", tmp_path / "weight.bin"
    words = ["train", config(tmp_path, recipe), "--shards", dataset, "--validation", dataset, "--out", out]
    words += ["--set", "loop.optimiser.lr=3e-5", "--set", "loop.read_every=2"]
    assert persona(*words) == 0
    printed = capsys.readouterr()
    told = printed.err.splitlines()
    assert "predicted memory: 0.00 GiB (weights 0.00, " in printed.out
    assert [line.split("  ")[0] for line in told] == [
        "step 2/3", "step 3/3", "step 3: validated, loss " + told[2].split("loss ")[1],
        f"saved {out}/checkpoints/step-00000003",
    ]  # fmt: skip
    assert re.fullmatch(
        r"step 2/3  loss \d\.\d{4}  smoothed \d\.\d{4}  lr 1\.20e-07  [\d.]+ samples/s  data-wait [\d.]+%"
        r"  \d+ s left",
        told[0],
    )
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 3]
    assert lines[-1]["validation_loss"] > 0
    assert persona(*words, "--set", "loop.steps=5", "--quiet") == 0
    told = capsys.readouterr()
    assert "goes on from step 3 of 5" in told.out
    assert "predicted memory" not in told.out
    assert told.err == ""

    assert persona("export", out, "--out", weight, "--verify") == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    card = str(weight.parent / "README.md")
    assert told == {"file": str(weight), "card": card, "step": 5, "recipe": recipe, "verified": True}
    # Published are the moving averages; the last step's weights where they are asked for.
    assert persona("export", out, "--out", tmp_path / "last.safetensors", "--last", "--verify") == 0
    group, _, rest = KEYS[recipe].partition(".")
    averaged = torch.load(weight, weights_only=True)[group][rest]
    last = load_file(tmp_path / "last.safetensors")[KEYS[recipe]]
    assert not torch.equal(averaged, last)
    checkpoint = load_checkpoint(checkpoints_in(out / "checkpoints")[-1])
    path = next(
        name
        for name in checkpoint.tensors["adapter"]
        if torch.equal(checkpoint.tensors["adapter"][name], last)
    )
    assert torch.equal(checkpoint.tensors["ema"][path], averaged)


def test_the_second_stage_starts_from_a_checkpoint_or_a_published_file(dataset: Path, tmp_path: Path) -> None:
    first = config(tmp_path, stage="shared_queries")
    assert persona("train", first, "--shards", dataset, "--out", tmp_path / "a") == 0
    adapter = checkpoints_in(tmp_path / "a/checkpoints")[-1] / "adapter.safetensors"
    assert persona("export", tmp_path / "a", "--out", tmp_path / "weight.bin", "--last") == 0
    second = config(tmp_path, stage="region_queries")

    def loss_from(start: Path, run: str) -> float:
        words = ["--set", f"start_from={start}", "--set", "loop.steps=1", "--quiet"]
        assert persona("train", second, "--shards", dataset, "--out", tmp_path / run, *words) == 0
        return json.loads((tmp_path / run / "metrics.jsonl").read_text())["loss"]

    assert loss_from(adapter, "b0") == loss_from(tmp_path / "weight.bin", "b1")
    # A run's folder begins with its averages; those of the second stage lack what is not trained in it.
    averages = checkpoints_in(tmp_path / "b0/checkpoints")[-1] / "ema.safetensors"
    assert loss_from(tmp_path / "b0", "c0") == loss_from(averages, "c1")
    # What a run has begun with need not be there when it goes on.
    shutil.rmtree(tmp_path / "b0")
    words = ["--set", f"start_from={tmp_path / 'b0'}", "--set", "loop.steps=2"]
    assert persona("train", second, "--shards", dataset, "--out", tmp_path / "c0", *words) == 0


def test_lora_that_starts_from_a_run_with_another_alpha_begins_as_that_run_ended(
    dataset: Path, tmp_path: Path
) -> None:
    """Of the base that has nothing else to start from, whose keys begin otherwise."""
    words: list[Any] = ["train", config(tmp_path, "flux2_reference"), "--shards", dataset, "--quiet"]
    words += ["--set", "loop.optimiser.lr=0.03", "--set", "loop.optimiser.warmup_steps=0"]
    alpha = "method.denoising.lora.alpha"
    assert persona(*words, "--set", f"{alpha}=8", "--out", tmp_path / "a") == 0
    last = checkpoints_in(tmp_path / "a/checkpoints")[-1]

    def first_loss(start: Path | None, alpha_now: str) -> float:
        out = tmp_path / f"from-{start.name if start else 'nothing'}-{alpha_now}"
        more = [] if start is None else ["--set", f"start_from={start}"]
        more += ["--set", "loop.steps=1", "--set", f"{alpha}={alpha_now}", "--out", str(out)]
        assert persona(*words, *more) == 0
        return json.loads((out / "metrics.jsonl").read_text())["loss"]

    for start in (tmp_path / "a", last / "adapter.safetensors", last / "ema.safetensors"):
        assert first_loss(start, "null") == pytest.approx(first_loss(start, "8"), rel=1e-4), start
    assert first_loss(last / "adapter.safetensors", "2") == pytest.approx(
        first_loss(last / "adapter.safetensors", "4"), rel=1e-4
    )
    assert first_loss(None, "8") != pytest.approx(first_loss(last / "adapter.safetensors", "16"), rel=1e-3)


def test_a_mixture_goes_on_with_its_own_datasets_in_their_order_alone(tmp_path: Path, capsys) -> None:
    for name in ("a", "b", "c", "elsewhere/a"):
        write_people(tmp_path / name)
    words: list[Any] = ["train", config(tmp_path), "--quiet", "--out", tmp_path / "run"]

    def train(steps: int, *shards: str) -> int:
        given = [f"{tmp_path}/{shard}" for shard in shards]
        return persona(*words, "--set", f"loop.steps={steps}", "--shards", *given)

    assert train(1, "a=3", "b") == 0
    for others in (("b=3", "a"), ("a=3", "c")):
        capsys.readouterr()
        assert train(2, *others) == 2
        told = capsys.readouterr().err
        assert "was begun with a, b (in this order), and" in told
        assert told.count("\n") == 1
    assert train(2, "elsewhere/a=1", "b=2") == 0, "shares may change, and a dataset may lie elsewhere"


def test_lora_beside_a_quantised_base_joins_a_run_and_is_exported_beside_its_adapter_or_in_the_base(
    dataset: Path, tmp_path: Path, capsys
) -> None:
    words = ["train", config(tmp_path), "--shards", dataset, "--quiet", "--set", "loop.steps=1"]
    assert persona(*words, "--out", tmp_path / "a") == 0
    words += ["--set", f"start_from={tmp_path / 'a'}", "--set", "method.denoising.lora.rank=2"]
    words += ["--set", "method.denoising.quantise=int8", "--set", "loop.optimiser.name=schedule_free"]
    assert persona(*words, "--out", tmp_path / "b") == 0
    weight, whole = tmp_path / "weight.safetensors", tmp_path / "whole.safetensors"
    assert persona("export", tmp_path / "b", "--out", weight, "--verify") == 0
    lora = load_file(tmp_path / "weight.lora.safetensors")
    assert all(name.startswith("unet.") and ".lora_" in name for name in lora)
    assert persona("export", tmp_path / "b", "--out", whole, "--merge-lora", "--verify") == 0
    assert {name for name in load_file(whole) if name.startswith("unet.")} > {
        name.replace(".lora_A", "") for name in lora if ".lora_A" in name
    }
    capsys.readouterr()
    assert persona("export", tmp_path / "a", "--out", whole, "--merge-lora") == 2
    assert "the run has trained no LoRA" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--set", "recipe=dreambooth"],
            "unknown recipe 'dreambooth': there are flux2_reference, ip_adapter, visual_persona",
        ),
        (["--set", "method.stage=third"], "recipe visual_persona: stage: 'third': input should be"),
        (["--set", "loop.step=3"], "--set: loop.step: unknown key; did you mean 'steps'?"),
        (["--set", "data.heigth_px=64"], "--set: data.heigth_px: unknown key; did you mean 'height_px'?"),
        (["--set", "method.decoder.dept=1"], "decoder.dept: unknown key; did you mean 'depth'?"),
        (["--set", "recipe=visual_person"], "unknown recipe 'visual_person'; did you mean visual_persona?"),
        (["--set", "data.regions=[hat]"], "data.regions: ['hat']: there is no region 'hat': full_body, head"),
        (["--set", "data.bucket_run=5", "--set", "data.buckets=area"], "5 must be a multiple of batch 2"),
        (
            ["--set", "data.batch=3", "--set", "data.buckets=area"],
            "--set: data: bucket_run 64 must be",
        ),
        (["--set", "data.batch=[1"], "--set data.batch=[1: the value is not valid YAML"),
        (["--recipe", "ip_adapter"], "is a config of the recipe visual_persona, not of ip_adapter"),
        (["--config", "demo"], "two configs are named"),
        (["--set", "loop"], "must be path.to.key=value"),
        (
            ["--set", "data.batch=64", "--set", "data.tail=drop"],
            "has 12 samples; a step of 1 ranks × 64 needs 64 (data.batch",
        ),
        (["--set", "data.leave_out=/nowhere.txt"], "data.leave_out: /nowhere.txt: [Errno 2]"),
        (["--set", "loop.checkpoints=/proc/nothere"], "/proc/nothere: cannot be written to: /proc: "),
        (
            ["--set", "method.denoising.cached_latents=true"],
            "the run reads latents only, and",
        ),
        (["--set", "method.dino.folder=/nowhere"], "method.dino.folder: /nowhere: no such folder"),
        (["--set", "start_from=/nowhere/adapter.safetensors"], "start_from: /nowhere/adapter.safetensors"),
        (["--shards", "/nowhere"], "/nowhere: no such folder"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_before_anything_runs(
    words: list[str], message: str, dataset: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "run"
    assert persona("train", config(tmp_path), "--shards", dataset, "--out", out, *words) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert not out.exists()


@pytest.fixture(scope="module")
def begun(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step."""
    folder = tmp_path_factory.mktemp("begun")
    words = ["--shards", dataset, "--out", folder / "run", "--set", "loop.steps=1", "--quiet"]
    assert persona("train", config(folder), *words) == 0
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["method.denoising.person_weight=3", "loop.ema_decay=0.25"],
         "with other settings: method.denoising.person_weight was 1.0, is 3.0; loop.ema_decay was 0.5, is "
         "0.25: go on with --changed, or choose another --out"),
        (["method.decoder.depth=1"], "method.decoder.depth was 2, is 1: go on with --changed"),
        (["data.batch=4"], "data.batch was 2, is 4: go on with --changed"),
        (["data.seed=9"], "data.seed was 0, is 9: the order goes on as it was begun"),
        (["recipe=ip_adapter", "method={}"], "made by the recipe visual_persona, this one is ip_adapter"),
    ],
)  # fmt: skip
def test_settings_that_a_run_was_not_begun_with_are_listed_and_refused(
    changes: list[str], message: str, begun: Path, dataset: Path, capsys
) -> None:
    words = [word for change in changes for word in ("--set", change)]
    at = ["--shards", dataset, "--out", begun / "run"]
    assert persona("train", begun / "visual_persona.yaml", *at, *words) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_a_run_goes_on_with_other_settings_where_that_is_asked_for(
    begun: Path, dataset: Path, tmp_path: Path, capsys
) -> None:
    run = tmp_path / "run"
    shutil.copytree(begun / "run", run)
    words = ["--shards", dataset, "--out", run, "--set", "data.threads=1", "--set", "loop.steps=2"]
    # A step of the same samples, dealt out otherwise, is no other setting.
    words += ["--set", "data.batch=1", "--set", "loop.accumulate=2"]
    file = begun / "visual_persona.yaml"
    assert persona("train", file, *words, "--set", "method.dropout.text=0.1", "--changed") == 0
    assert "goes on with other settings: method.dropout.text was 0.05, is 0.1\n" in capsys.readouterr().err
    # Then these are the run's.
    assert persona("train", file, *words) == 2
    assert "method.dropout.text was 0.1, is 0.05" in capsys.readouterr().err


def test_fewer_steps_than_are_done_are_refused(begun: Path, dataset: Path, tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    shutil.copytree(begun / "run", run)
    words = ["train", begun / "visual_persona.yaml", "--shards", dataset, "--out", run]
    assert persona(*words) == 0
    capsys.readouterr()
    assert persona(*words, "--set", "loop.steps=2") == 2
    assert "loop.steps: 2, and 3 are done" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_one_line_before_anything_is_built(
    dataset: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("training.recipes.visual_persona.VisualPersona.build", pytest.fail)
    for out in ("/proc/nothere", tmp_path / "file", tmp_path / "file/run"):
        assert persona("train", config(tmp_path), "--shards", dataset, "--out", out) == 2
        told = capsys.readouterr().err
        assert f"{out}: cannot be written to" in told
        assert told.count("\n") == 1


def test_a_dataset_of_less_than_a_batch_is_trained_and_validated_on(dataset: Path, tmp_path: Path) -> None:
    words = ["--validation", dataset, "--set", "data.batch=14", "--set", "loop.steps=1"]
    found = []
    # Where the channels of weights lie changes nothing but the last digits.
    for last in ("false", "true"):
        out = tmp_path / last
        words += ["--set", f"channels_last={last}"]
        assert persona("train", config(tmp_path), "--shards", dataset, "--out", out, *words) == 0
        trained, validated = (json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines())
        found.append((trained["loss"], validated["validation_loss"]))
    assert min(found[0]) > 0
    assert found[1] == pytest.approx(found[0], rel=1e-4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipe: ip_adapter\nloop:\n  steps: 3\n  precison: fp32\n", ":4: loop.precison: unknown key"),
        (
            "recipe: ip_adapter\nloop: {steps: three}\n",
            ":2: loop.steps: 'three': input should be a valid int",
        ),
        ("recipe: ip_adapter\nrecipe: ip_adapter\n", ":2: recipe: given twice"),
        ("recipe: ip_adapter\n", "loop: is required"),
        ("- recipe\n", "must be a mapping with the keys recipe, method"),
    ],
)
def test_what_is_wrong_in_a_config_is_named_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"mine\.yaml") as caught:
        read_settings(str(file), {})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_config_and_a_folder_without_a_run_are_one_line(
    dataset: Path, tmp_path: Path, capsys
) -> None:
    assert persona("train", "best", "--shards", dataset, "--out", tmp_path / "run") == 2
    told = capsys.readouterr().err
    assert "unknown config 'best': there are " in told
    assert "ip_adapter_demo, " in told
    assert told.count("\n") == 1
    assert persona("train", "visual_persona_dmo", "--shards", dataset, "--out", tmp_path / "run") == 2
    assert "did you mean visual_persona_demo?" in capsys.readouterr().err
    assert persona("export", tmp_path, "--out", tmp_path / "weight.bin") == 2
    assert "no checkpoint" in capsys.readouterr().err


def test_a_damaged_file_to_start_from_is_one_line(dataset: Path, tmp_path: Path, capsys) -> None:
    file = tmp_path / "adapter.safetensors"
    file.write_bytes(b"cut")
    words = ["--shards", dataset, "--out", tmp_path / "run", "--set", f"start_from={file}"]
    assert persona("train", config(tmp_path), *words) == 2
    told = capsys.readouterr().err
    assert f"start_from: {file}: " in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name a config: flux2_demo, "),
        (["--recipe", "visual_persona"], "name a config: --config demo or stage_a or "),
        (["--recipe", "visual_persona", "--config", "stage_c"], "no config 'stage_c' for the recipe"),
        (["--recipe", "ip_adapter", "--config", "visual_persona_demo"], "not of ip_adapter"),
    ],
)
def test_recipe_and_config_that_name_nothing_together_are_one_line(
    words: list[str], message: str, dataset: Path, tmp_path: Path, capsys
) -> None:
    assert persona("train", "--shards", dataset, "--out", tmp_path / "run", *words) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_recipe_and_config_name_a_config_together(dataset: Path, tmp_path: Path, capsys) -> None:
    words = ["--shards", dataset, "--out", tmp_path / "run"]
    file = config(tmp_path)
    assert persona("train", "--recipe", "visual_persona", "--config", file, *words) == 0
    # The config visual_persona_demo, of which this dataset is no step.
    capsys.readouterr()
    big = ["--set", "data.batch=640", "--set", "data.tail=drop"]
    for named in (["visual_persona_demo"], ["--recipe", "visual_persona", "--config", "demo"]):
        assert persona("train", *named, *words, *big) == 2
        assert "a step of 1 ranks × 640" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("newer", "has schema 2.0; this version of persona reads up to 1.x"),
        ("empty", "the dataset has 0 samples; a step of 1 ranks × 2 needs 2"),
        ("no records", "the dataset's samples have no 000.json, which the recipe's fields are made from"),
        ("no index", "index.arrow"),
    ],
)
def test_a_dataset_that_cannot_be_trained_on_is_one_line(
    change: str, message: str, dataset: Path, tmp_path: Path, capsys
) -> None:
    folder = tmp_path / "shards"
    shutil.copytree(dataset, folder)
    about = json.loads((folder / "dataset.json").read_text())
    if change == "newer":
        (folder / "dataset.json").write_text(json.dumps({**about, "schema": "2.0"}))
    elif change == "no index":
        (folder / "index.arrow").unlink()
    else:
        groups = {s.key: s.members for s in map(DatasetFolder(str(dataset)).read, range(4))}
        kept = {
            key: {name: m for name, m in members.items() if name[3:] != ".json"}
            for key, members in groups.items()
        }
        shutil.rmtree(folder)
        write_dataset(folder, kept if change == "no records" else {})
    out = tmp_path / "run"
    assert persona("train", config(tmp_path), "--shards", folder, "--out", out) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize("name", named_configs())
def test_the_configs_that_come_with_the_project_are_valid(name: str) -> None:
    settings = read_settings(name, {})
    recipe = recipe_of(settings.recipe, settings.method)
    assert recipe.fields(settings.data.height_px, settings.data.width_px)


def test_a_plan_says_the_memory_and_trains_nothing(dataset: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "run"
    assert persona("train", config(tmp_path), "--shards", dataset, "--out", out, "--plan") == 0
    told = json.loads(capsys.readouterr().out)
    parts = ("weights", "averages", "optimiser", "batch", "gradients", "activations")
    assert told["predicted_gib"] == pytest.approx(sum(told[part] for part in parts), abs=0.003)
    assert told["predicted_gib"] > 0
    assert not out.exists()


def test_a_plan_says_the_time_as_measured_else_as_an_estimate_and_else_that_it_is_not_known(
    begun: Path, dataset: Path, tmp_path: Path, capsys
) -> None:
    def plan(out: Path, *words: Any) -> tuple[dict[str, Any], str]:
        at = ["--shards", dataset, "--out", out, "--set", "loop.steps=101", "--plan"]
        assert persona("train", begun / "visual_persona.yaml", *at, *words) == 0
        found = capsys.readouterr()
        return json.loads(found.out), next(line for line in found.err.splitlines() if line.startswith("time"))

    told, said = plan(tmp_path / "none")
    assert (told["steps"], told["steps_left"], told["hours"], told["time_from"]) == (
        101,
        101,
        None,
        "unknown",
    )
    assert "--gpu H100 estimates it" in said

    told, said = plan(tmp_path / "none", "--gpu", "H100", "--mfu", "0.5")
    assert told["time_from"] == "estimate"
    # FLOPs of a step at half of 989 TFLOP/s.
    assert re.search(r"an estimate: [\d.e-]+ TFLOP at 50% of H100's 989 TFLOP/s", said)
    assert told["step_s"] == pytest.approx(
        float(said.split("estimate: ")[1].split()[0]) / 989 / 0.5, abs=1e-4
    )

    run = tmp_path / "run"
    shutil.copytree(begun / "run", run)
    lines = [
        {"step": n, "loss": 1.0, **({"step_s": s} if s else {})}
        for n, s in enumerate((9.0, 3.0, None, 5.0, 4.0))
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    told, said = plan(run, "--gpu", "H100")
    # Of the reads but the first, which has compilation in it; one step is done.
    assert (told["step_s"], told["time_from"], told["steps_left"]) == (4.0, "measured", 100)
    assert told["hours"] == pytest.approx(400 / 3600, abs=1e-3)
    assert (
        said
        == f"time: 6 min 40 s for 100 steps of 4 s (measured: the median of 3 reads in {run}/metrics.jsonl)"
    )

    assert (
        persona(
            "train", begun / "visual_persona.yaml", "--shards", dataset, "--out", run, "--plan", "--gpu", "X"
        )
        == 2
    )
    assert "--gpu X: its peak is not known; known are MI300X" in capsys.readouterr().err


def test_a_device_with_too_little_memory_is_one_line(
    dataset: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore lines")

    monkeypatch.setattr("training.step.Step.__call__", fails)
    assert persona("train", config(tmp_path), "--shards", dataset, "--out", tmp_path / "run") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "persona: CUDA out of memory. Tried to allocate 2 GiB. (see the prediction with --plan"
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_told_to_stop_saves_and_exits_with_0(
    number: signal.Signals, dataset: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "run"
    metrics = out / "metrics.jsonl"

    def tell() -> None:
        while not (metrics.is_file() and metrics.read_text()):
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    teller = threading.Thread(target=tell)
    teller.start()
    many = ["--set", "loop.steps=100000", "--set", "loop.read_every=1"]
    before = signal.getsignal(number)
    assert persona("train", config(tmp_path), "--shards", dataset, "--out", out, *many) == 0
    teller.join()
    assert signal.getsignal(number) is before
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["of"] == 100000
    assert load_checkpoint(checkpoints_in(out / "checkpoints")[-1]).step == told["steps"] < 100000
