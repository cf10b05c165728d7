"""What one takes from a page to a terminal: a run's experiment as a file, and the command that writes its tables."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from ..run import Run


def file(run: Run) -> str:
    """The experiment of a run in JSON, as `python -m bnlab train` takes it."""
    return run.experiment.model_dump_json(indent=2) + "\n"


def command(run: Run, directory: Path) -> str:
    """The command that exports a run of this directory, for the terminal of this machine, where this process began."""
    python = Path(sys.executable)
    if python.is_relative_to(Path.cwd()):
        python = python.relative_to(Path.cwd())  # .venv/bin/python
    words = [python, "-m", "bnlab", "export", directory, "--run", run.id, "--to", "csv", "--out", f"tables-{run.id}"]
    return (subprocess.list2cmdline if os.name == "nt" else shlex.join)([str(word) for word in words])
