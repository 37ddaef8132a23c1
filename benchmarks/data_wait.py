"""How long a training waits for its data: python benchmarks/data_wait.py

A GPU step that takes 150 samples/s is stood in for by a pause of just that length, which leaves the CPU free
as a GPU does. Around it is the data path of `persona train` (training/data.py) on two threads: pairs out of
shards, five crops of 224 px of the reference, a target of 256 px, ids of the caption, the size numbers and
the person's share. Photos have 512 × 512 px (reading_samples.py), three to a group. Counted is the share of
the time in which the loop waits for a batch, behind the first ones. Rows:

    pictures   targets of one size, decoded
    buckets    targets of three sizes, decoded
    latents    targets that `persona shards precompute` encoded (by a small VAE: the bytes are as many)

Others on the machine make a loop wait that would not wait alone. So beside the wait stand figures that
they change little: CPU ms a sample of this process, the loop's own part of it (what a step takes before its
kernels: the batch is handed out, its random streams are named), and the cores that the asked rate needs; and
what they took: cores that others used, and how long this process's threads stood in line for one. The last
line is JSON; `data_wait` is the largest of the rows. It takes about a minute and a half on two quiet cores.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from benchmarks.reading_samples import samples  # noqa: E402
from shards.format.dataset_writer import DatasetWriter  # noqa: E402
from training.data import open_data  # noqa: E402
from training.latents import LatentStatement  # noqa: E402
from training.precompute import Encoder, precompute  # noqa: E402
from training.ranks import Ranks  # noqa: E402
from training.recipes import recipe_of  # noqa: E402
from training.run_settings import DataSettings  # noqa: E402

ASKED = 150.0  # samples/s
SIDE_PX = 256
BATCH = 16
PHOTOS = 3  # of a group
GROUPS = 160
GROUPS_WITH_LATENTS = 40  # encoding is not what is measured
WARM_UP = 8  # batches
# The size of the data is that of the full model: crops of 224 px, text of 77 tokens. No model is built but
# the VAE of the row `latents`.
SDXL = {"vae_channels": [8, 8, 16, 16], "vae_layers": 1, "norm_groups": 8}
METHOD = {"sdxl": SDXL, "denoising": {"person_weight": 2.0}}


def main() -> int:
    """Measures, and prints a table and a line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20, help="of each row (default %(default)s)")
    parser.add_argument("--samples-per-s", type=float, default=ASKED, help="default %(default)s")
    parser.add_argument("--threads", type=int, default=2, help="default %(default)s")
    parser.add_argument("--folder", type=Path, help="where the datasets are kept (default: not kept)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
        return _measure(options, options.folder)
    with tempfile.TemporaryDirectory() as folder:
        return _measure(options, Path(folder))


def rows_of(folder: Path, samples_per_s: float, threads: int, seconds: float) -> dict[str, dict[str, float]]:
    """Measures the rows, each for so many seconds, on datasets that are written into the folder."""
    pictures = _dataset(folder / "pictures", GROUPS)
    latents = _with_latents(_dataset(folder / "few", GROUPS_WITH_LATENTS), folder / "latents")
    flat, tall = (SIDE_PX - 64, SIDE_PX + 64), (SIDE_PX + 64, SIDE_PX - 64)
    buckets: dict[str, Any] = {"buckets": [flat, (SIDE_PX, SIDE_PX), tall], "bucket_run": 4 * BATCH}
    row = partial(_row, samples_per_s=samples_per_s, threads=threads, seconds=seconds)
    return {
        "pictures": row(pictures),
        "buckets": row(pictures, **buckets),
        "latents": row(latents, latents="always"),
    }


def _measure(options: argparse.Namespace, folder: Path) -> int:
    rows = rows_of(folder, options.samples_per_s, options.threads, options.seconds)
    columns = {
        "data_wait": ("data-wait", ".2%"),
        "samples_per_s": ("samples/s", ".1f"),
        "cpu_ms_per_sample": ("CPU ms/sample", ".2f"),
        "loop_cpu_ms_per_sample": ("loop's own", ".3f"),
        "cores_needed": ("cores needed", ".2f"),
        "others_cores": ("others' cores", ".2f"),
        "in_line_ms_per_sample": ("in line ms", ".2f"),
    }
    print(" " * 10 + "".join(f"{title:>15}" for title, _ in columns.values()))
    for name, row in rows.items():
        print(f"{name:<10}" + "".join(f"{row[key]:>15{how}}" for key, (_, how) in columns.items()))
    worst = max(rows.values(), key=lambda row: row["data_wait"])
    found = {
        "data_wait": worst["data_wait"],
        "samples_per_s": worst["samples_per_s"],
        "asked_samples_per_s": options.samples_per_s,
        "cpu_ms_per_sample": max(row["cpu_ms_per_sample"] for row in rows.values()),
        "others_cores": max(row["others_cores"] for row in rows.values()),
        "device": f"a pause on {len(os.sched_getaffinity(0))} CPU cores",
        "side_px": SIDE_PX,
        "batch": BATCH,
        "threads": options.threads,
        "rows": rows,
    }
    print(json.dumps(found))
    return 0


def _row(
    folder: Path, *, samples_per_s: float, threads: int, seconds: float, **changed: Any
) -> dict[str, float]:
    """Runs the loop for some seconds."""
    asked = {
        "height_px": SIDE_PX,
        "width_px": SIDE_PX,
        "batch": BATCH,
        "threads": threads,
        "ahead": 4,
    }
    settings = DataSettings.model_validate({**asked, **changed})
    recipe = recipe_of("visual_persona", METHOD)
    stream = open_data(settings, recipe, Ranks(), str(folder)).batches(10**9)
    step_s = BATCH / samples_per_s
    for _ in islice(stream, WARM_UP):
        time.sleep(step_s)
    waited = seen = own = 0.0
    cpu, load, in_line = _cpu_s(), _load_cpu_s(), _in_line_s()
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        asked_at, own_at = time.perf_counter(), time.thread_time()
        batch = next(stream)
        waited += time.perf_counter() - asked_at
        own += time.thread_time() - own_at
        seen += float(batch.weight.sum())
        time.sleep(step_s)
    spent, used = time.perf_counter() - begin, _cpu_s() - cpu
    return {
        "data_wait": round(waited / spent, 4),
        "samples_per_s": round(seen / spent, 1),
        "cpu_ms_per_sample": round(1000 * used / seen, 2),
        "loop_cpu_ms_per_sample": round(1000 * own / seen, 3),
        "cores_needed": round(samples_per_s * used / seen, 2),
        "others_cores": round((_load_cpu_s() - load - used) / spent, 2),
        "in_line_ms_per_sample": round(1000 * (_in_line_s() - in_line) / seen, 2),
    }


def _cpu_s() -> float:
    """CPU seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _load_cpu_s() -> float:
    """CPU seconds that all processes of the machine have used: user, nice and system of /proc/stat."""
    user, nice, system = Path("/proc/stat").read_text().split()[1:4]
    return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")


def _in_line_s() -> float:
    """Seconds that threads of this process have stood in line for a core: the second number of schedstat."""
    return sum(int(file.read_text().split()[1]) for file in Path("/proc/self/task").glob("*/schedstat")) / 1e9


def _dataset(folder: Path, groups: int) -> Path:
    """Groups of three photos; written once, then found."""
    if not (folder / "dataset.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        with DatasetWriter(str(folder)) as writer:
            drawn = samples(groups * PHOTOS)
            for group in range(groups):
                writer.add(f"{group:016x}-a", dict(_members(islice(drawn, PHOTOS))))
            writer.close("benchmark", {})
    return folder


def _members(photos: Iterator[tuple[str, dict[str, bytes]]]) -> Iterator[tuple[str, bytes]]:
    yield "json", json.dumps({"photos": PHOTOS}).encode()
    for number, (_, members) in enumerate(photos):
        for suffix, data in members.items():
            yield f"{number:03d}{suffix[3:]}", data


def _with_latents(pictures: Path, folder: Path) -> Path:
    source = recipe_of("visual_persona", METHOD).base.vae
    who, vae = source.identity(), source.build()
    statement = LatentStatement(
        vae=who.name,
        sha256=who.sha256,
        scaling_factor=who.scaling_factor,
        channels=source.channels,
        sizes=((SIDE_PX, SIDE_PX),),
    )
    encoder = Encoder(source, vae, statement, batch=BATCH, threads=2)
    precompute(str(pictures), str(folder), statement, encoder, max_samples=1000, max_bytes=2**29)
    encoder.close()
    return folder


if __name__ == "__main__":
    sys.exit(main())
