"""The command line of persona. Each part is imported when its command is used."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from edges.command_line import Parser, add_command, refused

_EXAMPLES = """examples:
  persona curate real-photos --set source.path=photos --set models.path=weights --out runs/first
  persona status runs/first
  persona why runs/first IMG_0042.jpg
  persona shards verify runs/first/shards
"""

_STORE_CLIENTS = ("aiobotocore", "aiohttp", "botocore")  # whose errors of a store are no OSError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns 0, 1 (it ran, the result is bad) or 2 (bad usage or config)."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    parser = _parser(words)
    options = parser.parse_args(words)
    from curation.errors import PersonaError, printable

    try:
        return int(options.run(options))
    except PersonaError as error:
        # Names of strangers' files stand in errors: a terminal must not obey them.
        print("\n".join(printable(line) for line in f"persona: {error}".splitlines()), file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"persona: {' '.join(str(error).split())[:500]}", file=sys.stderr)
        return 1
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _STORE_CLIENTS:
            raise
        print(f"persona: {' '.join(str(error).split())[:500]}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("persona: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    command = words[0] if words else ""
    parser = Parser(
        prog="persona",
        description="Curate photos of people into shards of person × outfit groups.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    curate = add_command(
        commands,
        "curate",
        _curate,
        "run a pipeline on its collection; goes on by itself where it stopped",
        "persona curate real-photos --set source.path=photos --out runs/first --engine inline",
    )
    curate.add_argument("pipeline", help="a name in pipelines.yaml")
    _config_options(curate)
    curate.add_argument("--out", metavar="RUN", help="run folder, path or URL (default runs/PIPELINE)")
    _engine_options(curate)
    _allow_empty(curate)
    curate.add_argument("--commercial", action="store_true", help="refuse licences that forbid it")
    curate.add_argument(
        "--check", action="store_true", help="settings, backends and licences only: no weights are looked for"
    )

    retry = add_command(
        commands,
        "retry",
        _retry,
        "take up the rows that failed, with the settings the run was last started with",
        "persona retry runs/first",
    )
    retry.add_argument("folder", metavar="RUN")
    _engine_options(retry)
    _allow_empty(retry)

    status = add_command(
        commands, "status", _status, "what a run has done", "persona status runs/first --json"
    )
    status.add_argument("folder", metavar="RUN")
    status.add_argument("--json", action="store_true")

    why = add_command(
        commands,
        "why",
        _why,
        "every decision about a photo, person, identity or group",
        "persona why runs/first IMG_0042.jpg",
    )
    why.add_argument("folder", metavar="RUN")
    why.add_argument("id", nargs="?", help="file name, source key, or (start of) an id")
    why.add_argument("--failed", action="store_true", help="list all rows that failed")
    why.add_argument("--json", action="store_true")

    from curation.plan.commands import mount as mount_plan
    from curation.report.commands import mount as mount_report

    mount_plan(commands, _start, _engine_options)
    mount_report(commands)

    from curation.survey.commands import mount as mount_survey

    mount_survey(commands, _config_options)

    from curation.forgetting.commands import mount as mount_forgetting

    mount_forgetting(commands)

    evaluate = add_command(
        commands,
        "eval",
        _eval,
        "measure a finished run against a truth",
        "persona eval runs/demo/run --truth runs/demo/world/truth --json",
    )
    evaluate.add_argument("folder", metavar="RUN")
    evaluate.add_argument("--truth", required=True, metavar="DIR", help="folder of docs/operating.md#truth")
    evaluate.add_argument("--json", action="store_true", help="only the last line, one object")

    schema = add_command(
        commands,
        "schema",
        _schema,
        "JSON schema of pipelines.yaml",
        "persona schema > pipelines.schema.json",
    )
    schema.set_defaults(json=True)

    models = commands.add_parser("models", help="weights of a pipeline")
    actions = models.add_subparsers(metavar="ACTION", required=True)
    listing = add_command(
        actions,
        "list",
        _models_list,
        "where each model's weights are",
        "persona models list real-photos",
    )
    listing.add_argument("pipeline")
    _config_options(listing)
    listing.add_argument("--json", action="store_true")
    pulling = add_command(
        actions,
        "pull",
        _models_pull,
        "fetch the weights that a pipeline names, prove and pin them; goes on where it stopped",
        "persona models pull real-photos --to weights",
    )
    pulling.add_argument("pipeline")
    _config_options(pulling)
    pulling.add_argument("--to", metavar="DIR", help="default models.path, $PERSONA_MODELS or the cache")
    pulling.add_argument("--commercial", action="store_true", help="refuse licences that forbid it")
    pulling.add_argument("--quiet", action="store_true", help="no progress")
    pulling.add_argument("--json", action="store_true")

    serve = add_command(
        commands,
        "serve-vlm",
        _serve_vlm,
        "run the vLLM server that a pipeline names, until Ctrl-C",
        "persona serve-vlm visual-persona-500k --port 8000",
    )
    serve.add_argument("pipeline", help="a name in pipelines.yaml")
    _config_options(serve)
    serve.add_argument("--for", choices=("judge", "captioner"), dest="role", help="whose, if they differ")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at (default %(default)s)")
    serve.add_argument("--port", type=int, default=8000, help="default %(default)s")
    serve.add_argument("--log", metavar="FILE", help="default ~/.cache/persona/vllm-MODEL-PORT.log")

    judge = commands.add_parser("judge", help="the judge of outfits: label pairs, calibrate it")
    if command == "judge":
        from curation.judging.commands import mount as mount_judge

        mount_judge(judge)

    identities = commands.add_parser("identities", help="an identity index, and merges of identities")
    if command == "identities":
        from curation.identities.commands import mount as mount_identities

        mount_identities(identities)

    shards = commands.add_parser("shards", help="verify, count, merge, split, export and change datasets")
    if command == "shards":
        from shards.tools.actions import mount
        from training.latent_commands import mount as mount_latents

        mount_latents(mount(shards, words[1] if len(words) > 1 else ""))

    from training.commands import mount as mount_training

    mount_training(commands, _photo_parser, _face_embedder)
    return parser


def _config_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", default="pipelines.yaml", metavar="FILE")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="override one setting, as people.detect.min_score=0.5",
    )  # fmt: skip


def _engine_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--engine", choices=("ray", "inline"), default="ray")
    parser.add_argument("--ray-address", metavar="ADDRESS", help="an existing cluster, or 'auto'")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("--log-format", choices=("text", "json"), help="of the lines off a terminal")
    parser.add_argument("--metrics-port", type=int, metavar="PORT", help="for Prometheus, on loopback")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def _allow_empty(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--allow-empty", action="store_true", help="a stage that rules out everything is a success too"
    )


# What `persona generate` and `persona evaluate` know of photos: training may not import curation's stages.


def _photo_parser(options: argparse.Namespace) -> Any:
    """Files → their largest person, parsed by the stages of a pipeline."""
    from training.generation.references import LabelledPhoto

    parser = _people_parser(options)
    return lambda photos: [LabelledPhoto(found.photo, found.labels) for found in parser.parse(photos)]


def _face_embedder(options: argparse.Namespace) -> tuple[Any, str]:
    """Files → faces' embeddings by the stages of a pipeline; and a key of the models that make them."""
    parser = _people_parser(options)
    return parser.faces, parser.key


def _people_parser(options: argparse.Namespace) -> Any:
    from curation.people.parse_photos import PhotoParser
    from curation.pipeline_file import load_pipeline

    return PhotoParser(load_pipeline(options.pipelines, options.pipeline, []))


def _curate(options: argparse.Namespace) -> int:
    from curation.pipeline_file import load_pipeline

    pipeline = load_pipeline(options.config, options.pipeline, options.overrides)
    if options.check:
        return _check(pipeline, options)
    run = options.out or os.path.join("runs", options.pipeline)
    return _run(run, options.pipeline, pipeline, options, options.commercial)


def _check(pipeline: Any, options: argparse.Namespace) -> int:
    """Says what a run would ask, after all checks that need neither weights nor photos."""
    from curation.backends import check_backends
    from curation.models import check_licences
    from curation.settings.base import chosen_backends, model_names

    check_backends(pipeline, options.commercial)
    if options.commercial:
        check_licences(pipeline)
    cards = {name: pipeline.models.cards[name].licence for _, name in model_names(pipeline)}
    backends = {key: chosen.backend for key, _, chosen in chosen_backends(pipeline)}
    if options.json:
        print(json.dumps({"pipeline": options.pipeline, "backends": backends, "licences": cards}))
        return 0
    permit = ", whose licences permit commercial use" if options.commercial else ""
    print(f"{options.pipeline}: settings are right; {len(backends)} backends, {len(cards)} models{permit}")
    for key, backend in backends.items():
        print(f"  {key:<22} {backend}")
    for name, licence in cards.items():
        print(f"  model {name:<16} {licence}")
    return 0


def _retry(options: argparse.Namespace) -> int:
    from curation.retry import forget_failures
    from curation.run_folder import Run, run_at

    run = run_at(options.folder)
    name, pipeline = Run(run).pipeline()
    options.pipeline = name
    forgotten = forget_failures(run)
    if not options.quiet and options.log_format != "json":
        print(f"{forgotten} failed measurements are taken up again", file=sys.stderr)
    return _run(run, name, pipeline, options, commercial=False, also={"taken_up": forgotten})


def _run(
    run: str,
    name: str,
    pipeline: Any,
    options: argparse.Namespace,
    commercial: bool,
    also: dict[str, Any] | None = None,
) -> int:
    """Runs the phases, and prints what came out, with what else --json is to say."""
    from curation.curate import curate, nothing_left
    from curation.status import summary_lines

    job, engine = _start(run, pipeline, options, commercial)
    try:
        summary = curate(job, name, engine, options.quiet)
    finally:
        engine.close()
    if options.json:
        print(json.dumps({**summary, **(also or {})}))
    elif not options.quiet:
        print("\n".join([*summary_lines(summary), f"run folder: {job.run}"]))
    empty = None if options.allow_empty else nothing_left(job.run, summary["stages"])
    return 0 if empty is None else refused(empty, code=1)


def _start(run: str, pipeline: Any, options: argparse.Namespace, commercial: bool = False) -> tuple[Any, Any]:
    """Checks all that can be checked, then starts the engine. Returns the job and the engine."""
    from curation.absolute import absolute_path, with_absolute_paths
    from curation.backends import check_backends
    from curation.engine import Engine, InlineEngine, Job, RayEngine
    from curation.excluded.opt_out import OptOuts
    from curation.forgetting.everywhere import check_before_run
    from curation.models import find_models
    from curation.outfits.judge_identity import check_calibration
    from curation.sources.units import list_units, with_kind

    # Workers have working directories of their own.
    run, pipeline = absolute_path(run), with_absolute_paths(_with_telemetry(pipeline, options))
    check_backends(pipeline, commercial)
    models = find_models(pipeline, commercial, _pull_command(options))
    check_calibration(pipeline, models)
    OptOuts(pipeline.photos.screen)
    check_before_run(run, pipeline)
    pipeline = with_kind(pipeline)
    list_units(pipeline.source)
    if pipeline.identities.index is not None:
        from curation.identities.extend import open_index

        open_index(pipeline, models)
    engine: Engine = InlineEngine()
    if options.engine == "ray":
        phases = ("photos", "people", "identities", "outfits", "captions", "shards")
        wanted = max(getattr(pipeline, phase).resources.num_cpus for phase in phases)
        engine = RayEngine(pipeline.engine, options.ray_address, int(wanted))
    return Job(run, pipeline, models, os.environ.get("PERSONA_CALLS")), engine


def _with_telemetry(pipeline: Any, options: argparse.Namespace) -> Any:
    """The pipeline as --log-format and --metrics-port want it."""
    given = {"log_format": options.log_format, "metrics_port": options.metrics_port}
    wanted = {key: value for key, value in given.items() if value is not None}
    if not wanted:
        return pipeline
    from curation.errors import ConfigError

    port = options.metrics_port
    if port is not None and not 0 <= port <= 65535:
        raise ConfigError(f"--metrics-port {port}: must be 0 to 65535")
    return pipeline.model_copy(update={"telemetry": pipeline.telemetry.model_copy(update=wanted)})


def _status(options: argparse.Namespace) -> int:
    from curation.run_folder import run_at
    from curation.status import is_well, read_status, status_lines

    status = read_status(run_at(options.folder))
    print(json.dumps(status) if options.json else "\n".join(status_lines(status)))
    return 0 if is_well(status) else 1


def _why(options: argparse.Namespace) -> int:
    from curation.errors import ConfigError, printable
    from curation.run_folder import run_at
    from curation.why import explain, failed_rows, why_lines

    run = run_at(options.folder)
    if options.failed and options.id is not None:
        raise ConfigError("why: give an id or --failed, not both")
    if options.failed and options.json:
        print(json.dumps({"run": run, "failed": list(failed_rows(run))}))
        return 0
    if options.failed:
        for row in failed_rows(run):
            print(printable(f"{row['id']}  {row['stage']}: {row['detail']}"))
        return 0
    if options.id is None:
        raise ConfigError("why: give an id or a file name, or --failed")
    found = explain(run, options.id)
    print(json.dumps(found) if options.json else "\n".join(why_lines(found)))
    return 0


def _eval(options: argparse.Namespace) -> int:
    from curation.evaluation.evaluate import evaluate, measure_lines, to_json
    from curation.run_folder import run_at

    measures = evaluate(run_at(options.folder), options.truth)
    if not options.json:
        print("\n".join(measure_lines(measures)))
    print(json.dumps(to_json(measures)))
    return 0


def _schema(options: argparse.Namespace) -> int:
    from curation.pipeline_file import json_schema

    print(json.dumps(json_schema(), indent=1))
    return 0


def _models_list(options: argparse.Namespace) -> int:
    from curation.models import list_models
    from curation.pipeline_file import load_pipeline

    rows = list_models(load_pipeline(options.config, options.pipeline, options.overrides))
    for row in rows:
        if options.json:
            continue
        where = row["path"] or f"{row['file']} from {row['source']}"
        print(f"{row['name']:<20} {row['state']:<8} {row['licence']:<18} {where}")
    if options.json:
        print(json.dumps(rows))
    return 0 if all(row["path"] for row in rows) else 1


def _models_pull(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from curation.backends import check_backends
    from curation.errors import printable
    from curation.models import check_licences
    from curation.pipeline_file import load_pipeline
    from curation.weights.pull import Bar, Lines, Progress, pull

    pipeline = load_pipeline(options.config, options.pipeline, options.overrides)
    if options.commercial:
        check_backends(pipeline, commercial=True)
        check_licences(pipeline)
    progress = Progress() if options.quiet else Bar() if sys.stderr.isatty() else Lines()
    with _stopped_at_once(progress.end):
        cards = pull(pipeline, options.config, options.to, progress)
    for card in cards:
        if card.fault is not None:
            refused(printable(f"{card.name}: {card.fault}"))
        elif not options.json:
            print(f"{card.name:<20} {card.state:<8} {'pinned' if card.pinned else '':<7} {card.path}")
    if options.json:
        print(json.dumps([asdict(card) for card in cards]))
    return 1 if any(card.fault for card in cards) else 0


@contextmanager
def _stopped_at_once(last: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C ends the process: threads that download would be waited for, and a kill does no harm."""
    import signal

    def stop(*_: object) -> None:
        last()
        print("persona: interrupted; the same command goes on from here", file=sys.stderr, flush=True)
        os._exit(130)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _pull_command(options: argparse.Namespace) -> str:
    """The command that fetches the weights that this one misses."""
    import shlex

    words = ["persona", "models", "pull", options.pipeline]
    config = getattr(options, "config", "pipelines.yaml")
    if config != "pipelines.yaml":
        words += ["--config", config]
    for override in getattr(options, "overrides", []):
        words += ["--set", override] if override.startswith("models.") or ".model=" in override else []
    return shlex.join(words)


def _serve_vlm(options: argparse.Namespace) -> int:
    from functools import partial

    from curation.pipeline_file import load_pipeline
    from curation.vlm.serve import serve_vlm

    pipeline = load_pipeline(options.config, options.pipeline, options.overrides)
    return serve_vlm(
        pipeline, options.role, options.host, options.port, options.log, partial(print, flush=True)
    )


if __name__ == "__main__":
    sys.exit(main())
