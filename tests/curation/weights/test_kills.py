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

from curation.pipeline_file import load_pipeline
from curation.weights.lock import Lock, Pin
from curation.weights.pull import Progress, Pulled
from curation.weights.pull import pull as pull_weights
from tests.curation.weights.test_wheels import OTHER, write_page, write_wheel
from tests.drawn_cards import card, faults, pins, pull, sha256, write_cards
from tests.drawn_pipeline import ROOT, command, environment, files_of
from tests.loopback_web import Hub, running, tell_of_hub

BIG = random.Random(5).randbytes(3_000_000)
SLOW_S = 0.01  # for each of 184 blocks: the whole takes some seconds


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub, which is a web server too, and an index of wheels."""
    with running(Hub) as server:
        tell_of_hub(monkeypatch, server.url, tmp_path / "hub")
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "simple").as_uri())
        monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
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
    for first_s, last_s in ((0.3, 1.5), (1.5, 3), (3, 5)):  # of about five
        process = started(config, tmp_path / "weights")
        time.sleep(moments.uniform(first_s, last_s))
        process.kill()
        process.communicate()
        found = laid(tmp_path / "weights")
        assert found.items() <= whole.items()
        assert sum(name.startswith("model/") for name in found) in (0, 3)
    done = pull(config, tmp_path / "weights")
    assert (done.returncode, done.stderr) == (0, "")
    assert files_of(tmp_path / "weights") == whole
    pinned = (tmp_path / "models.lock").read_bytes()
    (tmp_path / "models.lock").unlink()
    hub.serve("/one", BIG)
    assert pull(config, tmp_path / "undisturbed").returncode == 0
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


class Said(Progress):
    """What pulls say."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_two_pulls_into_one_folder_wait_for_each_other_fetch_once_and_pin_the_commit(
    hub: Hub, tmp_path: Path
) -> None:
    commit = hub.publish("makers/model", "main", {"one.bin": OTHER})
    source, said = "hf://makers/model/one.bin", Said()
    config = write_cards(
        tmp_path / "cards.yaml",
        web=card(hub.serve("/one", BIG, slow_s=SLOW_S), "web.bin"),
        model=card(source, "model.bin", revision="main"),
    )

    def pulled(_: int) -> list[str]:
        pipeline = load_pipeline(str(config), "drawn")
        return [one.state for one in pull_weights(pipeline, str(config), str(tmp_path / "weights"), said)]

    with ThreadPoolExecutor(2) as pool:
        states = list(pool.map(pulled, range(2)))
    assert sorted(states) == [["pulled", "pulled"], ["there", "there"]]
    assert sum("another pull works in" in line for line in said.lines) == 1
    assert files_of(tmp_path / "weights") == {"web.bin": BIG, "model.bin": OTHER}
    assert len(hub.gets("/one")) == 1
    assert pins(config)[f"{source}@main"] == {"sha256": sha256(OTHER), "commit": commit}


def test_pins_of_many_pulls_at_once_by_two_pipeline_files_of_a_folder_are_all_kept_in_order(
    tmp_path: Path,
) -> None:
    locks = [Lock(str(write_cards(tmp_path / name))) for name in ("cards.yaml", "others.yaml")]
    many = {f"https://a.example/{number:02}": Pin(sha256=f"{number:064x}") for number in range(24)}

    def add(name: str) -> Pin:
        return locks[int(name[-1]) % 2].add(name, many[name])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, random.Random(3).sample(sorted(many), len(many))))
    lock = locks[0]
    assert lock.pins() == many
    names = [line.split(": ")[0].rstrip(":") for line in lock.path.read_text().splitlines() if line[0] == "h"]
    assert names == sorted(many)


def test_what_is_pinned_is_never_replaced_by_another_pull_and_keeps_its_commit(tmp_path: Path) -> None:
    lock = Lock(str(write_cards(tmp_path / "cards.yaml")))
    first, commit = Pin(sha256="a" * 64), "c" * 40
    assert lock.add("hf://a/b", first) == first
    assert lock.add("hf://a/b", Pin(sha256="b" * 64)) == first
    whole = Pin(sha256="a" * 64, commit=commit)
    assert lock.add("hf://a/b", whole) == whole
    assert lock.add("hf://a/b", first) == whole
    assert lock.add("hf://a/b", Pin(sha256="b" * 64), instead_of=first) == whole
    assert lock.pins() == {"hf://a/b": whole}
    # A card that states another hash than it did is no other pull: its pin follows.
    assert lock.add("hf://a/b", Pin(sha256="b" * 64), instead_of=whole) == Pin(sha256="b" * 64)


def test_two_pulls_of_a_source_that_changes_between_them_do_not_both_count(hub: Hub, tmp_path: Path) -> None:
    source = hub.serve("/one", BIG, slow_s=SLOW_S)
    config = write_cards(tmp_path / "cards.yaml", web=card(source, "web.bin"))

    def pulled(to: str) -> list[Pulled]:
        return pull_weights(load_pipeline(str(config), "drawn"), str(config), str(tmp_path / to))

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(pulled, "first")
        until = time.monotonic() + 60
        while not hub.gets("/one") and time.monotonic() < until:
            time.sleep(0.01)
        hub.serve("/one", OTHER, slow_s=0)
        second = pool.submit(pulled, "second").result()
    states = [one.state for one in (*first.result(), *second)]
    assert sorted(states) == ["failed", "pulled"]
    (refused,) = [one for one in (*first.result(), *second) if one.state == "failed"]
    assert "as another pull has pinned" in str(refused.fault)
    found = files_of(tmp_path / "first") | files_of(tmp_path / "second")
    assert pins(config) == {source: {"sha256": sha256(found["web.bin"])}}
    assert len(found) == 1


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
