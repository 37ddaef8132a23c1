"""What a run tells of itself: metrics, spans, log lines; and a dashboard that knows the metrics by name."""

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from curation.errors import ConfigError
from curation.ledger import Counts
from curation.settings.pipeline import TelemetrySettings
from curation.telemetry.metrics import Metrics
from curation.telemetry.spans import Spans, spans_of
from persona import main
from tests.drawn_people import collection, write_folder
from tests.drawn_pipeline import ROOT, settings, write_config

Said = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("told")
    photos = write_folder(folder / "photos", collection(3, people=2, outfits=2, photos=3))
    return write_config(folder / "pipelines.yaml", settings(photos, fragment_rows=4))


def run(config: Path, out: Path, *words: str) -> int:
    base = ["curate", "drawn", "--config", str(config), "--out", str(out), "--engine", "inline"]
    return main([*base, *words])


def samples(text: str) -> dict[tuple[str, str], float]:
    """{(name, its labels but the run's): value}."""
    return {
        (
            sample.name,
            ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items())),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def working(counts: Counts) -> dict[str, Any]:
    """What a worker says of a fragment."""
    asked = {"outcomes": {"ok": 5, "http_503": 1}, "retries": 1, "seconds": 2.5, "most_in_flight": 4}
    times = {"rows": 4, "seconds": 2.0, "first_rows": 4, "first_seconds": 2.0}
    return {
        "stages": {"detect": times},
        "calls": {"detect": 4},
        "seconds": 2.5,
        "cpu_seconds": 1.5,
        "bytes": 1000,
        "vlm": asked,
    }


def counted() -> Counts:
    counts = Counts()
    counts.add(
        {"detect": {"unit": "photo", "in": 4, "kept": 3, "rejected": 1, "failed": 0, "reasons": {"crowd": 1}}}
    )
    return counts


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    """Of a run in the middle of its phase `people`, at a free port."""
    watcher = Metrics("runs/x", "drawn", TelemetrySettings(metrics_port=0))
    watcher.begin("people", 3, 1, Counts(), 2)
    watcher.advance(4, counted(), working(counted()))
    yield watcher
    watcher.finish("finished")


def scraped(watcher: Metrics) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{watcher.port}/metrics", timeout=10) as response:
        return str(response.read().decode())


def test_prometheus_reads_rows_queues_requests_and_bytes_at_the_port(metrics: Metrics) -> None:
    found = samples(scraped(metrics))
    assert found["persona_rows_total", "stage=detect,unit=photo,verdict=kept"] == 3
    assert found["persona_reasons_total", "reason=crowd,stage=detect"] == 1
    assert found["persona_fragments_done", "step=people"] == 2
    assert found["persona_fragments_waiting", "step=people"] == 1
    assert found["persona_workers", "step=people"] == 2
    assert found["persona_stage_seconds_total", "stage=detect"] == 2.0
    assert found["persona_vlm_requests_total", "outcome=http_503"] == 1
    assert found["persona_vlm_retries_total", "step=people"] == 1
    assert found["persona_vlm_in_flight", ""] == 4
    assert found["persona_written_bytes_total", "step=people"] == 1000
    assert found["persona_run_state", "state=running"] == 1


def test_a_port_that_is_taken_is_one_line(metrics: Metrics) -> None:
    with pytest.raises(ConfigError, match=r"telemetry\.metrics_port: cannot open 127\.0\.0\.1:") as said:
        Metrics("runs/y", "drawn", TelemetrySettings(metrics_port=metrics.port))
    assert len(str(said.value).splitlines()) == 1


def test_the_dashboard_asks_for_nothing_that_is_not_exported(metrics: Metrics) -> None:
    dashboard = json.loads((ROOT / "deploy/grafana/persona.json").read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    asked = {
        name for panel in panels for t in panel["targets"] for name in re.findall(r"persona_\w+", t["expr"])
    }
    variables = dashboard["templating"]["list"]
    asked |= {name for v in variables for name in re.findall(r"persona_\w+", v["query"])}
    exported = {name for name, _ in samples(scraped(metrics)) if not name.endswith("_created")}
    assert asked == exported  # and whatever is exported can be seen
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_a_run_leaves_its_metrics_in_a_file_and_its_log_as_objects(
    config: Path, tmp_path: Path, capsys: Said
) -> None:
    file = tmp_path / "persona.prom"
    words = ["--set", f"telemetry.metrics_file={file}", "--log-format", "json"]
    capsys.readouterr()
    assert run(config, tmp_path / "run", *words) == 0
    found = samples(file.read_text())
    assert found["persona_run_state", "state=finished"] == 1
    assert found["persona_rows_total", "stage=read,unit=photo,verdict=kept"] == 12
    assert found["persona_rows_total", "stage=pack,unit=group,verdict=kept"] == 2
    assert found["persona_stage_rows_total", "stage=detect"] == 12
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {"time", "level", "event", "run", "phase", "stage"} <= set(lines[0])
    assert [line["event"] for line in lines if line["phase"] == "people"] == ["step_begins", "step_ends"]
    assert lines[-1]["event"] == "run_finished"
    people = next(line for line in lines if line["event"] == "step_ends" and line["phase"] == "people")
    assert people["counts"]["detect"]["in"] == 12


def test_what_a_run_tells_changes_nothing_that_it_makes(config: Path, tmp_path: Path) -> None:
    assert run(config, tmp_path / "a", "--quiet") == 0
    assert run(config, tmp_path / "b", "--quiet", "--metrics-port", "0", "--log-format", "json") == 0
    for name in ("dataset.json", "index.parquet"):
        assert (tmp_path / "a/shards" / name).read_bytes() == (tmp_path / "b/shards" / name).read_bytes()


@pytest.mark.parametrize("words", [("--metrics-port", "70000"), ("--set", "telemetry.metrics_file=x.txt")])
def test_what_cannot_be_told_is_one_line_before_anything_runs(
    config: Path, tmp_path: Path, capsys: Said, words: tuple[str, str]
) -> None:
    assert run(config, tmp_path / "run", *words) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_spans_nest_stages_in_steps_in_the_run() -> None:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    spans = Spans(provider, "runs/x", "drawn")
    spans.begin("people", 1, 0, Counts(), 2)
    spans.advance(4, counted(), working(counted()))
    spans.end()
    spans.finish("stopped", "no space left")
    found = {span.name: span for span in exporter.get_finished_spans()}
    assert list(found) == ["detect", "people", "curate drawn"]
    assert found["detect"].parent is not None
    assert found["people"].context is not None
    assert found["people"].parent is not None
    assert found["detect"].parent.span_id == found["people"].context.span_id
    assert found["detect"].attributes is not None
    assert found["detect"].attributes["persona.rejected"] == 1
    assert found["detect"].attributes["persona.seconds"] == 2.0
    assert not found["curate drawn"].status.is_ok


def test_a_collector_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch, capfd: Said) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    said: list[str] = []
    spans = spans_of("runs/x", "drawn", said.append)
    assert spans is not None
    spans.begin("people", 1, 0, Counts(), 2)
    spans.finish("finished")
    assert len(said) == 1
    assert said[0].startswith("spans do not arrive where OTEL_EXPORTER_OTLP_ENDPOINT says: ")
    assert capfd.readouterr().err == ""
