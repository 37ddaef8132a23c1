"""A pull that is killed, has no room, or is not alone: what is laid is whole, and the next pull ends it."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from curation.weights.lock import Lock, Pin
from tests.curation.weights.test_wheels import OTHER, write_page, write_wheel
from tests.drawn_cards import card, faults, pull, write_cards
from tests.drawn_pipeline import ROOT, command, environment, files_of
from tests.loopback_web import Hub, running

BIG = random.Random(5).randbytes(3_000_000)
SLOW_S = 0.01  # for each of 184 blocks: the whole takes some seconds


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub, which is a web server too, and an index of wheels."""
    with running(Hub) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "simple").as_uri())
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "PIP_FIND_LINKS"):
            monkeypatch.delenv(name, raising=False)
        write_page(write_wheel(tmp_path / "simple" / "drawnweights"))
        yield server


def started(config: Path, to: Path) -> "subprocess.Popen[str]":
    """A pull in a process of its own."""
    words = command("models", "pull", "drawn", "--config", config, "--to", to)
    pipe = subprocess.PIPE
    return subprocess.Popen(words, cwd=ROOT, env=environment(), stdout=pipe, stderr=pipe, text=True)


def laid(folder: Path) -> dict[str, bytes]:
    """What a run would find."""
    return {name: data for name, data in files_of(folder).items() if not name.startswith(".pulling/")}


def test_a_pull_killed_at_random_moments_and_repeated_ends_in_the_same_files(
    hub: Hub, tmp_path: Path
) -> None:
    moments = random.Random()  # another each time: what is promised holds for any
    hub.publish(
        "makers/model", "main", {"config.json": b"{}", "model.safetensors": BIG, "b.safetensors": OTHER}
    )
    config = write_cards(
        tmp_path / "cards.yaml",
        web=card(hub.serve("/one", BIG, slow_s=SLOW_S), "deep/web.bin"),
        wheel=card("pypi://drawnweights==1.2/drawnweights/two.tflite", "two.tflite"),
        folder=card("hf://makers/model", "model"),
    )
    whole = {
        "deep/web.bin": BIG,
        "two.tflite": OTHER,
        "model/config.json": b"{}",
        "model/model.safetensors": BIG,
        "model/b.safetensors": OTHER,
    }
    for _ in range(5):
        process = started(config, tmp_path / "weights")
        time.sleep(moments.uniform(0.5, 5))
        process.kill()
        process.communicate()
        found = laid(tmp_path / "weights")
        assert found.items() <= whole.items()
        assert sum(name.startswith("model/") for name in found) in (0, 3)
    done = pull(config, tmp_path / "weights", alone=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert files_of(tmp_path / "weights") == whole
    pinned = (tmp_path / "models.lock").read_bytes()
    (tmp_path / "models.lock").unlink()
    assert pull(config, tmp_path / "undisturbed", alone=True).returncode == 0
    assert ((tmp_path / "models.lock").read_bytes(), files_of(tmp_path / "undisturbed")) == (pinned, whole)


def test_a_pull_that_is_interrupted_ends_at_once_in_one_line_and_goes_on_later(
    hub: Hub, tmp_path: Path
) -> None:
    source = hub.serve("/one", BIG, slow_s=10)
    config = write_cards(tmp_path / "cards.yaml", web=card(source, "web.bin"))
    process = started(config, tmp_path / "weights")
    until = time.monotonic() + 60
    while not hub.gets("/one") and time.monotonic() < until:
        time.sleep(0.05)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - began < 5
    assert (process.returncode, said.splitlines()[-1]) == (
        130,
        "persona: interrupted; the same command goes on from here",
    )
    hub.serve("/one", BIG)
    assert pull(config, tmp_path / "weights").returncode == 0
    assert files_of(tmp_path / "weights") == {"web.bin": BIG}


def test_two_pulls_into_one_folder_wait_for_each_other_and_fetch_once(hub: Hub, tmp_path: Path) -> None:
    config = write_cards(
        tmp_path / "cards.yaml", web=card(hub.serve("/one", BIG, slow_s=3 * SLOW_S), "web.bin")
    )
    both = [started(config, tmp_path / "weights") for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("another pull works in" in errors for _, errors in said) == 1
    assert files_of(tmp_path / "weights") == {"web.bin": BIG}
    assert len(hub.gets("/one")) == 1


def test_pins_of_many_pulls_at_once_are_all_kept_in_order(tmp_path: Path) -> None:
    config = write_cards(tmp_path / "cards.yaml")
    lock = Lock(str(config))
    pins = {f"https://a.example/{number:02}": Pin(sha256=f"{number:064x}") for number in range(24)}

    def add(name: str) -> None:
        lock.add({name: pins[name]})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, random.Random(3).sample(sorted(pins), len(pins))))
    assert lock.pins() == pins
    names = [line.split(": ")[0].rstrip(":") for line in lock.path.read_text().splitlines() if line[0] == "h"]
    assert names == sorted(pins)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("this process may mount no file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_fills_up_is_one_line_and_with_room_the_pull_goes_on(
    hub: Hub, tmp_path: Path, small_disk: Path
) -> None:
    config = write_cards(tmp_path / "cards.yaml", web=card(hub.serve("/one", BIG, head=False), "web.bin"))
    done = pull(config, small_disk)
    assert (done.returncode, faults(done)) == (
        1,
        [f"web: no space is left at {small_disk}; what arrived is kept"],
    )
    assert laid(small_disk) == {}
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    assert pull(config, small_disk).returncode == 0
    assert files_of(small_disk) == {"web.bin": BIG}
    assert "Range" in hub.gets("/one")[-1]


def test_a_folder_and_a_lock_file_that_cannot_be_written_are_one_line(hub: Hub, tmp_path: Path) -> None:
    config = write_cards(tmp_path / "cards.yaml", web=card(hub.serve("/one", BIG), "web.bin"))
    (tmp_path / "file").write_text("")
    done = pull(config, tmp_path / "file")
    assert (done.returncode, len(faults(done))) == (1, 1)
    (tmp_path / "models.lock").mkdir()
    done = pull(config, tmp_path / "weights")
    assert (done.returncode, len(faults(done))) == (2, 1)
    assert "models.lock: cannot be read: " in done.stderr
