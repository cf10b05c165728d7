"""A worker comes up: what is asked meanwhile waits for the libraries and is obeyed, and the page comes before it."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from at_work import LONG, until

from bnlab.process import ABOVE, Process
from bnlab.store import RunStore

WARMING = """
import sys, threading
from bnlab import work
warm = work.warm
work.warm = lambda: (print(threading.active_count(), "thread", file=sys.stderr), warm())
work.main(sys.argv[1])
"""


@pytest.fixture
def worker(tmp_path):
    """A worker that begins to warm: its process."""
    command = [sys.executable, "-c", WARMING, str(tmp_path)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, cwd=ABOVE, text=True, **pipes) as process:
        assert process.stderr.readline() == "1 thread\n", "on Windows, scipy would wait for what the other one reads"
        yield process
        process.kill()


def test_a_run_that_is_sent_and_stopped_while_the_worker_warms_is_stopped(worker, tmp_path):
    store = RunStore(tmp_path)
    run = store.create(LONG)
    for message in ({"run": run.id}, {"stop": run.id}):
        print(json.dumps(message), file=worker.stdin, flush=True)
    until(lambda: store.run(run.id).status == "stopped")


def test_a_worker_whose_pipe_closes_while_it_warms_ends(worker):
    worker.stdin.close()
    assert worker.wait(60) == 0


def test_on_windows_the_page_comes_before_a_worker(monkeypatch):
    """There is no os.nice; Windows is told at the start, and nobody else understands it."""
    monkeypatch.setattr(subprocess, "BELOW_NORMAL_PRIORITY_CLASS", 0x4000, raising=False)
    with pytest.raises(ValueError, match="creationflags is only supported on Windows"):
        Process(SimpleNamespace(store=SimpleNamespace(directory="runs")))
