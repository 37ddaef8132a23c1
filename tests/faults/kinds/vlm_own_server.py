"""SIGKILL of the vision-language server that a run has started itself and must start again."""

import time
from random import Random

import psutil

from tests.drawn_pipeline import ROOT
from tests.faults.small_run import Folder, SmallRun, config_of, require_one_line
from tests.faults.vlm import ANSWER_S, module_that_serves, vlm_pipeline
from tests.faults.workplace import Injury, Workplace
from tests.forked import Command

SHARE = 2


def injure(place: Workplace, random: Random) -> Injury:
    """One kill, up to a second after the server began to answer."""
    later_s = random.uniform(0, 40 * ANSWER_S)
    config = config_of(place, "own vlm", vlm_pipeline(place, None))
    path = place.once("vlm module", lambda: module_that_serves(place.folder / "python"))

    def run_in_new_folder() -> SmallRun:
        scratch = place.fresh()
        environment = {"PYTHONPATH": f"{path}:{ROOT}"}
        return SmallRun(config, Folder(scratch / "run"), scratch, environment=environment)

    undisturbed = run_in_new_folder().undisturbed(place, "own vlm")
    run = run_in_new_folder()
    command = run.start()
    server = _server_of(run, command)
    time.sleep(later_s)
    hit = server is not None and command.running()
    if server is not None and server.is_running():
        server.kill()
    if command.exit_code():  # one that dies before the run has seen it ready is one that does not start
        require_one_line(command)
    run.check_visible()
    run.finish(undisturbed)
    return Injury(hit, f"killed {later_s:.2f} s after it was up, exit code {command.exit_code()}")


def _server_of(run: SmallRun, command: Command) -> psutil.Process | None:
    """The server's process, when it answers; None where the run ended before."""
    log = run.where.path / "vllm.log"
    while command.running():
        if log.exists() and "serving at" in log.read_text():
            for process in psutil.Process(command.pid).children(recursive=True):
                words = process.cmdline()
                is_guard = any("process_guard" in word for word in words)
                if "vllm.entrypoints.openai.api_server" in words and not is_guard:
                    return process
        time.sleep(0.005)
    return None
