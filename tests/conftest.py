"""Engines that tests share: one Ray cluster and one S3-compatible server for the whole session."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drawn_people import Drawn, collection, write_folder
from tests.drawn_pipeline import ROOT

SEED = 11

# Servers of tests listen on loopback; a proxy that the environment names cannot reach them.
for _name in ("no_proxy", "NO_PROXY"):
    os.environ[_name] = ",".join(filter(None, (os.environ.get(_name), "127.0.0.1", "localhost")))

# Two test processes share two cores, and so do all that they start; read when numpy and torch are loaded.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

# Files that take longest, longest first, as measured: whoever begins one of these last ends alone.
_LONG_FILES = (
    "training/test_ranks.py",
    "curation/test_engine.py",
    "training/test_memory.py",
    "training/test_fits.py",
    "training/test_commands.py",
    "training/test_loop.py",
    "curation/vlm/test_vlm_server.py",
    "training/test_second_base.py",
    "curation/test_recovery.py",
    "shards/reading/test_by_others.py",
    "curation/people/test_segmenters.py",
    "house/test_hostile_corpus.py",
    "curation/test_cluster.py",
    "curation/weights/test_wheels.py",
    "curation/identities/test_link_cosine.py",
    "curation/vlm/test_vlm_client.py",
    "training/test_models.py",
    "curation/forgetting/test_forgetting_in_store.py",
    "demo/test_demo_vlm.py",
    "curation/people/test_full_size.py",
    "curation/photos/test_real_photos.py",
)

# Files whose tests start engines or processes that take long: `make quick` leaves them out.
_HEAVY_FILES = frozenset(
    {
        "curation/forgetting/test_forgetting_in_store.py",
        "curation/photos/test_real_photos.py",
        "curation/test_cluster.py",
        "curation/test_engine.py",
        "curation/vlm/test_vlm_client.py",
        "curation/vlm/test_vlm_server.py",
        "demo/test_demo_measure.py",
        "demo/test_demo_training.py",
        "demo/test_demo_vlm.py",
        "house/test_docs_commands.py",
        "house/test_docs_site.py",
        "house/test_extending.py",
        "house/test_faults.py",
        "house/test_fuzz.py",
        "house/test_hostile_corpus.py",
        "house/test_processors.py",
        "training/test_ranks.py",
        "training/test_second_base.py",
    }
)
_HEAVY_FIXTURES = frozenset({"ray_address", "s3", "server", "browser"})


def _name_of(item: pytest.Item) -> str:
    return item.path.relative_to(ROOT / "tests").as_posix()


def is_heavy(item: pytest.Item) -> bool:
    """Whether a test starts a cluster, a server, a browser, or other processes that take long."""
    return _name_of(item) in _HEAVY_FILES or not _HEAVY_FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of two workers that are handed whole files, the long ones go out first, then those with many tests."""
    if not hasattr(config, "workerinput"):
        return  # one process: as they lie
    tests = Counter(item.path for item in items)

    def turn(item: pytest.Item) -> tuple[int, int, str]:
        name = _name_of(item)
        first = _LONG_FILES.index(name) if name in _LONG_FILES else len(_LONG_FILES)
        return first, -tests[item.path], str(item.path)

    items.sort(key=turn)


@pytest.fixture(scope="session")
def drawn() -> list[Drawn]:
    """60 photos: 10 people, two outfits each, three photos of each outfit."""
    return collection(SEED, people=10)


@pytest.fixture(scope="session")
def photos(drawn: list[Drawn], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn collection as a folder of files; tests do not change it."""
    return write_folder(tmp_path_factory.mktemp("collection") / "photos", drawn)


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """A real Ray cluster on this machine that runs are pointed at."""
    import ray

    os.environ["PYTHONPATH"] = str(ROOT)  # workers are started by the cluster, not by the command
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=128 * 2**20,
    )
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """URL of a bucket on a real S3-compatible server on loopback."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    boto3.client("s3").create_bucket(Bucket="collections")
    yield "s3://collections"
    for name, value in before.items():
        if value is None:
            os.environ.pop(name)
        else:
            os.environ[name] = value
    server.stop()
