"""The environment of the peers: .venv-peers, made of requirements/peers.txt, apart from ours.

Their pins must not decide ours, and ours must not slow them.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements" / "peers.txt"


def peer_python() -> Path:
    """The interpreter of the peers; installs them where they are not. Raises RuntimeError, one line."""
    venv = ROOT / ".venv-peers"
    python = venv / "bin" / "python"
    stamp = venv / ".installed"
    wanted = REQUIREMENTS.read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print("benchmarks: installing the peers into .venv-peers", file=sys.stderr)
    uv = Path(sys.executable).with_name("uv")
    commands: list[list[Any]] = [
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, venv],
        [uv, "pip", "sync", "--quiet", "--require-hashes", "--python", python, REQUIREMENTS],
    ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            problem = (done.stderr.strip().splitlines() or [f"uv ended with code {done.returncode}"])[-1]
            raise RuntimeError(f"the peers cannot be installed: {problem}")
    stamp.write_text(wanted)
    return python
