"""What one takes from a page to a terminal: a run's experiment as a file, and the command that writes its tables."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from ..process import ABOVE
from ..run import Run


def file(run: Run) -> str:
    """The experiment of a run in JSON, as `python -m bnlab train` takes it."""
    return run.experiment.model_dump_json(indent=2) + "\n"


def command(run: Run, directory: Path) -> str:
    """The command that exports a run of this directory, for a terminal in the lab's own. Who reads it may be a visitor:
    of what lies elsewhere on the machine the path is not told, and DIR stands for the directory."""
    python, place = (below(path, other) for path, other in ((Path(sys.executable), "python"), (directory, "DIR")))
    words = [python, "-m", "bnlab", "export", place, "--run", run.id, "--to", "csv", "--out", f"tables-{run.id}"]
    return (subprocess.list2cmdline if os.name == "nt" else shlex.join)(words)


def below(path: Path, other: str) -> str:
    """A path from the lab's own directory, or `other` where it leads elsewhere."""
    path = Path(os.path.abspath(path))  # without "..", and a virtual environment's python stays its own
    return str(path.relative_to(ABOVE)) if path.is_relative_to(ABOVE) else other
