"""SIGKILL of the vision-language server that a run was given; it comes back, the run waits and goes on."""

import time
from random import Random

from tests.faults.small_run import Folder, SmallRun, config_of
from tests.faults.vlm import Server, questions_until, vlm_pipeline
from tests.faults.workplace import BrokenPromiseError, Injury, Workplace

SHARE = 5


def injure(place: Workplace, random: Random) -> Injury:
    """One kill among the questions, and up to two seconds without a server."""
    questions, later_s, away_s = questions_until(random), random.uniform(0, 0.03), random.uniform(0, 2)
    server = place.once("vlm server", Server)
    config = config_of(place, "vlm", vlm_pipeline(place, server.url))

    def run_in_new_folder() -> SmallRun:
        scratch = place.fresh()
        return SmallRun(config, Folder(scratch / "run"), scratch)

    server.start()
    try:
        undisturbed = run_in_new_folder().undisturbed(place, "vlm")
        run = run_in_new_folder()
        command = run.start()
        hit = server.waits_for_questions(questions, command)
        time.sleep(later_s)
        hit = hit and command.running()
        server.kill()
        time.sleep(away_s)
        server.start()
        if command.exit_code():
            raise BrokenPromiseError(f"did not wait for its server: {command.said()[-300:]}")
        run.check_visible()
        run.finish(undisturbed)
    finally:
        server.kill()
    return Injury(hit, f"killed after {questions} questions, away {away_s:.1f} s")
