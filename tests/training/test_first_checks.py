"""A slip in the words of a command of training is one line, before torch is imported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.drawn_pairs import write_people
from tests.drawn_pipeline import ROOT
from tests.drawn_training import SETTINGS
from training.first_checks import check_run, shares_of
from training.recipes import read_method
from training.run_settings import RunSettings

# Runs several commands in one process: what the first of them imports is counted to it.
CODE = """
import json, sys, time
before = time.process_time()
from persona import main
for words in json.loads(sys.argv[1]):
    try:
        code = main(words)
    except SystemExit as end:
        code = end.code
    now = time.process_time()
    print(json.dumps([code, now - before, "torch" in sys.modules]))
    before = now
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first")
    write_people(folder / "run/shards")
    (folder / "a-file").touch()
    method = {**SETTINGS["visual_persona"], "dino": {"folder": "models/dinov2-giant"}}
    (folder / "weightless.yaml").write_text(
        yaml.safe_dump({"recipe": "visual_persona", "method": method, "loop": {"steps": 3}})
    )
    return folder


DEMO = "train visual_persona_demo --shards run/shards --out out"
TINY = "train {demo} --shards run/shards --out out"
EVALUATE = "evaluate demo --shards run/shards --out out"
MISTAKES = {
    "train visual_persona_dmo --shards run/shards --out out":
        "unknown config 'visual_persona_dmo'; did you mean",
    f"{DEMO} --set loop.step=3": "loop.step: unknown key; did you",
    f"{DEMO} --set method.dino.dept=3": "dino.dept: unknown key",
    f"{DEMO} --set data.regions=[hat]": "there is no region 'hat'",
    f"{DEMO} --set data.height_px=100":
        "data.height_px: 100: input should be a multiple of 64: 64 or 128",
    "train visual_persona_demo --shards nowhere --out out": "nowhere: no such folder",
    "train visual_persona_demo --shards run --out out": "run: no dataset.json; did you mean run/shards?",
    "train visual_persona_demo --shards run/shards --validation run/shards/000000.tar --out out":
        "is a file, and a dataset is a folder with dataset.json; did you mean run/shards?",
    "train visual_persona_demo --shards run/shards --out /proc/nothere":
        "/proc/nothere: cannot be written to",
    "train visual_persona_demo --shards run/shards --out a-file/run": "a-file/run: cannot be written to",
    "train weightless.yaml --shards run/shards --out out":
        "method.dino.folder: models/dinov2-giant: no such folder in {place}; `hf download "
        "facebook/dinov2-giant --local-dir models/dinov2-giant` fetches it",
    "train flux2_reference_512 --shards run/shards --out out":
        "method.flux2.folder: models/FLUX.2-klein-base-4B: no such folder in {place}; `hf download "
        "black-forest-labs/FLUX.2-klein-base-4B --local-dir models/FLUX.2-klein-base-4B` fetches it",
    "train flux2_reference_512 --shards run/shards --out out --set method.flux2.vae_folder=models/vae "
    "--set method.flux2.folder=run": "method.flux2.folder: run: no config.json: not a model's folder; `hf ",
    "train flux2_reference_512 --shards run/shards --out out --set method.part_pix=3":
        "part_pix: unknown key; did you mean 'part_px'?",
    f"{TINY} --set loop.pictures_every=5":
        "loop.pictures_every: pictures need --validation DIR",
    TINY + ' --set pictures.fixed=[{{"sample":"a:b","prompt":"c"}}]':
        "pictures.fixed: pictures are drawn every loop.pictures_every steps",
    f"{TINY} --set loop.patience=2": "loop.patience: it counts validations",
    f"{TINY} --set loop.epochs=2": "steps or epochs: one of the two",
    f"{TINY} --set loop.checkpoint_every=often":
        "must be steps, or as '1 epoch'",
    "train {demo} --shards run/shards=0 --out out": "--shards run/shards=0: a share is a whole number",
    "train {demo} --shards run/shards run/shards --out out": "run/shards: is named twice",
    f"{TINY} --set start_from=gone": "start_from: gone: no such file or folder",
    "export gone --out weight.safetensors": "gone: no checkpoint and no run with one",
    "export run --out weight.safetensors": "run: no checkpoint and no run with one",
    "export a-file --out /proc/nothere/weight.safetensors": "/proc/nothere: cannot be written to",
    "export run --out weight.safetensors --layout comfyui --verify": "--verify reads the published layout",
    "export a-file --out weight.safetensors --evaluation gone": "gone/results.json",
    f"{EVALUATE.replace('demo', 'dmo')} --checkpoint run": "unknown evaluation 'dmo'; did you mean demo?",
    f"{EVALUATE} --checkpoint run": "run: no checkpoint and no run with one",
    f"{EVALUATE} --weights gone.bin --config visual_persona_demo": "--weights gone.bin: no such file",
    f"{EVALUATE} --weights a-file --config visual_persona_dmo": "unknown config 'visual_persona_dmo'",
    "evaluate demo --checkpoint a-file --shards nowhere --out out": "nowhere: no such folder",
    f"{EVALUATE} --checkpoint a-file --set peple=2": "peple: unknown key; did you mean 'people'?",
    "generate --photo a-file --prompt x --checkpoint run --out a.png":
        "run: no checkpoint and no run with one",
}  # fmt: skip


def test_a_wrong_word_is_one_line_within_a_second_of_processor_time_and_without_torch(place: Path) -> None:
    demo = place / "demo.yaml"
    demo.write_text(
        yaml.safe_dump(
            {"recipe": "visual_persona", "method": SETTINGS["visual_persona"], "loop": {"steps": 3}}
        )
    )
    # The demo's VAE is named from the project's root.
    (place / "demo").symlink_to(ROOT / "demo")
    filled = [line.format(demo=demo) for line in MISTAKES]
    ran = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps([line.split() for line in filled])],
        cwd=place, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )  # fmt: skip
    told = ran.stderr.splitlines()
    results = [json.loads(line) for line in ran.stdout.splitlines()]
    assert len(told) == len(results) == len(MISTAKES), ran.stderr
    for line, said, (code, seconds, has_torch), wanted in zip(
        filled, told, results, MISTAKES.values(), strict=True
    ):
        assert wanted.format(place=place) in said, line
        assert code == 2, line
        assert not has_torch, line
        assert seconds <= 1, line
    assert not (place / "out").exists()


def test_a_share_stands_behind_a_folder_and_an_equals_sign_in_a_url_or_a_name_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "year=2024").mkdir()
    meant = {
        "s3://bucket/year=2024": ("s3://bucket/year=2024", 1),
        "s3://bucket/year=2024/": ("s3://bucket/year=2024/", 1),
        "s3://bucket/year=2024/=3": ("s3://bucket/year=2024", 3),
        "s3://bucket/day=2024-12-01/people/=2": ("s3://bucket/day=2024-12-01/people", 2),
        "gs://bucket/people": ("gs://bucket/people", 1),
        "year=2024": ("year=2024", 1),
        "year=2024=3": ("year=2024", 3),
        "year=2024/=3": ("year=2024", 3),
        "gone/day=2024-12-01/people": ("gone/day=2024-12-01/people", 1),
        "people=3": ("people", 3),
        "people": ("people", 1),
    }
    for word, dataset in meant.items():
        assert shares_of([word]) == [dataset], word
    with pytest.raises(ValueError, match="--shards s3://b/a/=much: a share is a whole number"):
        shares_of(["s3://b/a/=much"])
    with pytest.raises(ValueError, match="s3://b/a: is named twice"):
        shares_of(["s3://b/a/=1", "s3://b/a"])


def test_what_a_run_began_with_need_not_be_there_when_its_checkpoints_lie_elsewhere(
    place: Path, tmp_path: Path
) -> None:
    def check(checkpoints: str) -> None:
        loop = {"steps": 3, "checkpoints": checkpoints}
        given = {"recipe": "visual_persona", "method": SETTINGS["visual_persona"], "loop": loop}
        settings = RunSettings.model_validate({**given, "start_from": "gone"})
        check_run(settings, [str(place / "run/shards")], None, tmp_path / "out")

    with pytest.raises(ValueError, match="start_from: gone: no such file or folder"):
        check(str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere").mkdir()
    check(str(tmp_path / "elsewhere"))
    check("s3://bucket/run")  # what is there is found when it is opened


def test_weights_are_looked_up_in_persona_models_by_the_name_of_their_folder(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = yaml.safe_load((place / "weightless.yaml").read_text())

    def check() -> None:
        check_run(RunSettings.model_validate(given), [str(place / "run/shards")], None, tmp_path / "out")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PERSONA_MODELS", str(tmp_path / "disk"))
    missing = f"no such folder in {tmp_path}, and no dinov2-giant in {tmp_path}/disk; "
    with pytest.raises(ValueError, match=missing):
        check()
    (tmp_path / "disk/dinov2-giant").mkdir(parents=True)
    (tmp_path / "disk/dinov2-giant/config.json").write_text("{}")
    check()
    found = read_method("visual_persona", given["method"])
    assert found is not None
    assert found.model_dump()["dino"]["folder"] == str(tmp_path / "disk/dinov2-giant")
    # What lies where the config says comes first.
    (tmp_path / "models/dinov2-giant").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"models/dinov2-giant: no config\.json"):
        check()
