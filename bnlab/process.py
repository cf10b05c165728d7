"""A process `python -m bnlab work DIR` as the server holds it: what it is told, its last words, its end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .jobs import Jobs
    from .looker import Looker

ABOVE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # where the package lies, for it to find


class Process:
    """One process, and the run it is executing. Its owner follows what it says, in a thread of its own."""

    def __init__(self, owner: Jobs | Looker):
        self.run_id: str | None = None
        self.last_words = ""
        path = os.pathsep.join(filter(None, [ABOVE, os.environ.get("PYTHONPATH")]))
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "bnlab", "work", str(owner.store.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",  # what a library of the system says can be in any encoding
            env=os.environ | {"PYTHONPATH": path},
            creationflags=getattr(subprocess, "BELOW_NORMAL_PRIORITY_CLASS", 0),  # Windows has no os.nice (work.py)
        )
        self.threads = [
            threading.Thread(target=self.hear, daemon=True),
            threading.Thread(target=owner.follow, args=(self,), daemon=True),
        ]
        for thread in self.threads:
            thread.start()

    def hear(self) -> None:
        """Remember the last line of standard error: the reason, should the process die."""
        for line in self.popen.stderr:
            self.last_words = line.strip() or self.last_words

    def tell(self, **message: object) -> None:
        with suppress(OSError, ValueError):  # that it is dead is met by who follows it
            self.popen.stdin.write(json.dumps(message) + "\n")
            self.popen.stdin.flush()

    def ending(self) -> str:
        """Wait for its end, and say in words how it came."""
        code = self.popen.wait()
        self.threads[0].join(1)
        for pipe in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            with suppress(OSError):  # what was still to be written to it is of no use
                pipe.close()
        return f"signal {-code}" if code < 0 else f"exit code {code}: {self.last_words[:200]}"

    def close(self) -> None:
        """Close its pipe: it keeps what it has and ends."""
        with suppress(OSError):
            self.popen.stdin.close()

    def join(self) -> None:
        """Wait until it has ended, and those who hear and follow it."""
        try:
            self.popen.wait(15)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        for thread in self.threads:
            thread.join(5)
