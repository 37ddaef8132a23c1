"""README.md and docs/: their commands run, and those that cannot be run here are at least accepted."""

import argparse
import ast
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch.distributed.run import get_args_parser

import persona
from curation.errors import ConfigError
from curation.pipeline_file import load_pipeline
from edges.settings_reader import assignments
from tests.docs_blocks import PAGES, Block, Command, blocks_of
from tests.docs_workplace import make_workplace, restore
from tests.drawn_pipeline import ROOT, environment
from training.evaluation.settings import read_evaluation
from training.recipes import recipe_of
from training.run_settings import named_configs, read_settings

_BLOCKS = {page: blocks_of(page) for page in PAGES}
_OURS = re.compile(r"^(?:\$ )?(?:\.venv/bin/)?(?:persona |torchrun |python -m |python benchmarks/)")
# Folders of the repository whose files a command may name.
_FILES = re.compile(r"(?:benchmarks|demo|deploy|docs|requirements|tests|training)/\S+\.[a-z]+")


def _pages_with(wanted: Any) -> list[Any]:
    return [pytest.param(page, id=page.name) for page, blocks in _BLOCKS.items() if any(map(wanted, blocks))]


def _is_run(block: Block) -> bool:
    return block.language == "bash" and block.not_run is None


def _is_only_read(block: Block) -> bool:
    return block.language == "console" or (block.language == "bash" and block.not_run is not None)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(the place where commands are run, a copy of it as it was made)."""
    place = tmp_path_factory.mktemp("docs") / "place"
    make_workplace(place)
    copy = place.with_name("pristine")
    restore(copy, place)
    return place, copy


@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in PAGES])
def test_every_block_says_what_it_is_and_commands_stand_in_blocks_of_bash(page: Path) -> None:
    for block in _BLOCKS[page]:
        assert block.language, f"{block.where}: say bash, console, text, python or yaml behind the fence"
        if block.language not in ("bash", "console"):
            ours = [line for line in block.text.splitlines() if _OURS.match(line)]
            assert not ours, f"{block.where}: {ours[0]!r} is a command in a block of {block.language}"


@pytest.mark.parametrize("page", _pages_with(_is_run))
def test_the_commands_of_a_page_run_as_they_are_written_in_this_order(
    page: Path,
    pristine: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place, copy = pristine
    restore(place, copy)
    monkeypatch.chdir(place)
    for block in filter(_is_run, _BLOCKS[page]):
        for command in block.commands():
            if command.needs_shell:
                _run_in_shell(command, place)
                continue
            code = persona.main(_without_ray(command.words[1:]))
            printed = capsys.readouterr()
            assert code == 0, f"{command.where}: {command.line}\n{printed.out}{printed.err}"


def test_the_python_of_the_front_page_runs_as_it_is_printed(
    pristine: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place, copy = pristine
    restore(place, copy)
    monkeypatch.chdir(place)
    [block] = [block for block in _BLOCKS[ROOT / "README.md"] if block.language == "python"]
    exec(compile(block.text, block.where, "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) >= 1
    assert all("(8, 512, 512, 3)" in line for line in printed)


@pytest.mark.parametrize("page", _pages_with(_is_only_read))
def test_commands_that_are_not_run_here_are_accepted_by_their_parsers_and_name_files_that_exist(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    for block in filter(_is_only_read, _BLOCKS[page]):
        for command in block.commands():
            for name in _FILES.findall(command.line):
                assert (ROOT / name).exists(), f"{command.where}: {name} does not exist"
            try:
                _accept(command, monkeypatch)
            except (SystemExit, Exception) as refusal:
                printed = capsys.readouterr()
                pytest.fail(f"{command.where}: {command.line}\n{printed.err}{refusal}")


@pytest.mark.parametrize("page", _pages_with(lambda block: block.language == "python"))
def test_python_in_the_docs_compiles_and_imports_what_is_there(page: Path) -> None:
    # A page that adds to a module shows it as a difference; tests/house/test_extending.py applies these.
    added = {
        name
        for block in _BLOCKS[page]
        if block.language == "diff"
        for name in re.findall(r"^\+(?:class|def) (\w+)", block.text, re.M)
    }
    for block in _BLOCKS[page]:
        if block.language != "python":
            continue
        # A line for a dictionary stands alone on its page.
        is_entry = re.match(r'\s*"\w+": ', block.text)
        text = f"{{{block.text}}}" if is_entry else block.text
        for node in ast.walk(ast.parse(text, block.where)):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = _names_in(node.module)
                missing = {name.name for name in node.names} - names - added if names else set()
                assert not missing, f"{block.where}: {node.module} has no {', '.join(missing)}"


@pytest.mark.parametrize("page", _pages_with(lambda block: block.language == "yaml"))
def test_settings_in_the_docs_are_accepted_when_they_are_laid_over_a_pipeline(
    page: Path, tmp_path: Path
) -> None:
    pipelines = yaml.safe_load((ROOT / "pipelines.yaml").read_text())["pipelines"]
    for block in _BLOCKS[page]:
        settings = yaml.safe_load(block.text) if block.language == "yaml" else {}
        # Settings of a training name their recipe; tests/training/test_second_base.py trains with them.
        if settings and "recipe" not in settings:
            over = _laid_over(pipelines["real-photos"], settings)
            file = tmp_path / "pipelines.yaml"
            file.write_text(yaml.safe_dump({"pipelines": {"mine": over}}))
            load_pipeline(str(file), "mine", [])


def _laid_over(below: Any, above: Any) -> Any:
    if not isinstance(below, dict) or not isinstance(above, dict) or "backend" in above:
        return above  # another backend has other keys
    return {**below, **{name: _laid_over(below.get(name), value) for name, value in above.items()}}


@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in PAGES])
def test_files_and_modules_that_a_page_names_are_there(page: Path) -> None:
    text = page.read_text()
    for name in re.findall(
        r"`(?:python )?((?:benchmarks|demo|deploy|docs|requirements|tests)/[^` ]+\.\w+)", text
    ):
        assert list(ROOT.glob(name)), f"{page.name}: {name} does not exist"
    for module in re.findall(r"`python -m ([a-z_.]+)", text):
        file = ROOT / module.replace(".", "/")
        assert file.with_suffix(".py").exists() or (file / "__main__.py").exists(), f"{page.name}: {module}"


def _names_in(module: str) -> set[str]:
    """What a module of ours defines, by its text: importing all that docs name takes a minute. Else empty."""
    file = ROOT / (module.replace(".", "/") + ".py")
    if not file.exists():
        assert find_spec(module.partition(".")[0]), f"no module {module}"
        assert module.partition(".")[0] not in ("edges", "curation", "shards", "training", "demo"), module
        return set()
    names: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        names |= {target.id for target in getattr(node, "targets", []) if isinstance(target, ast.Name)}
    return names


def _without_ray(words: list[str]) -> list[str]:
    """The same on the other engine: tests/curation/test_engine.py holds that both give the same bytes."""
    if words[0] in ("curate", "retry", "plan") and "--engine" not in words:
        return [*words, "--engine", "inline", "--quiet"]
    return words


def _run_in_shell(command: Command, place: Path) -> None:
    scripts = ("python", ".venv/bin/python", "make", "torchrun")
    assert command.words[0] not in scripts, f"{command.where}: say why it is not run: {command.line}"
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        ["bash", "-c", command.line],
        cwd=place, env={**environment(), "PATH": path}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, f"{command.where}: {command.line}\n{done.stdout}{done.stderr}"


class _Accepted(BaseException):
    """Raised in the place of whatever follows the parsing of a command's words."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options


def _accept(command: Command, patch: pytest.MonkeyPatch) -> None:
    """Lets the command's own parser read its words. Raises SystemExit or another error where it does not."""
    words = command.words
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    program, rest = words[0], words[1:]
    if program == "make":
        for target in rest:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M), f"no target {target}"
    elif program in ("persona", ".venv/bin/persona"):
        _accept_persona(rest, patch)
    elif program == "torchrun":
        launch = get_args_parser().parse_args(rest)
        assert launch.module
        assert launch.training_script == "persona"
        # Without it a checkpoint has 30 s when the training is told to stop.
        assert launch.shutdown_timeout is not None
        _accept_persona(launch.training_script_args, patch)
    elif program in ("python", ".venv/bin/python"):
        _accept_script(rest, patch)


def _accept_persona(words: list[str], patch: pytest.MonkeyPatch) -> None:
    with _stopping_behind_the_parser(patch) as accepted:
        persona.main(words)
    options = accepted.value.options
    if "overrides" in options and "pipeline" in options and options.config == "pipelines.yaml":
        load_pipeline(options.config, options.pipeline, options.overrides)
    if words[0] == "train" and options.name in named_configs():
        _accept_training(options.name, options.set)


def _accept_training(config: str, words: list[str]) -> None:
    settings = read_settings(config, assignments(words))
    recipe_of(settings.recipe, settings.method)


@pytest.mark.parametrize("page", _pages_with(lambda block: True))
def test_what_a_page_sets_in_its_text_is_a_key_of_a_pipeline_a_training_or_an_evaluation(page: Path) -> None:
    for text in re.findall(r"`(--set [^`…]+)`", page.read_text()):
        words = [word for word in shlex.split(text) if word not in ("--set", "path.to.key=value")]
        refusals = []
        for accept in (
            lambda words: load_pipeline(str(ROOT / "pipelines.yaml"), "visual-persona-500k", words),
            lambda words: _accept_training("visual_persona_stage_b", words),
            lambda words: read_evaluation("demo", assignments(words)),
        ):
            try:
                accept(words)
                break
            except (ConfigError, ValueError) as error:
                refusals.append(str(error))
        else:
            pytest.fail(f"{page.name}: {text}: {refusals}")


def _accept_script(words: list[str], patch: pytest.MonkeyPatch) -> None:
    with _stopping_behind_the_parser(patch):
        if words[0] == "-m":
            patch.setattr(sys, "argv", words[1:])
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            patch.setattr(sys, "argv", words)
            runpy.run_path(words[0], run_name="__main__")


@contextmanager
def _stopping_behind_the_parser(patch: pytest.MonkeyPatch) -> Iterator[Any]:
    whole = argparse.ArgumentParser.parse_args

    def parse_args(self: argparse.ArgumentParser, *words: Any) -> None:
        raise _Accepted(whole(self, *words))

    with patch.context() as parsing:
        parsing.setattr(argparse.ArgumentParser, "parse_args", parse_args)
        with pytest.raises(_Accepted) as accepted:
            yield accepted
