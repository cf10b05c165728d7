"""The process that executes runs: `python -m bnlab work DIR`, fed over a pipe, warm before the first message.

Messages are lines of JSON. In: {"run": id} or {"run": id, "steps": 1} to execute, {"pause": id}, {"stop": id};
{"run": id, "score": step} to score a run that rested there when it was stopped; {"look": probe, "run": id, ...} to look
at a stored run. Out: {"ready": true}, {"ended": id, "left": [[probe, step], ...]} with the looks that are still to be
taken, {"looking": message} when a look or a scoring begins and {"looked": message, "unkept": sentence} when it has
ended: why what it saw could not be kept, or nothing.
When the pipe closes, the worker keeps what it has and ends, also mid-run.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from .database import Error, Unkept, told
from .executing import Unable, score, train_run
from .experiment import Experiment, Settings
from .looking import look, look_at
from .problems import in_a_line
from .run import STEERED, Taken
from .store import RunStore
from .train import train

MEMORY = 8 * 2**30  # bytes of data a worker may hold; what an experiment needs was checked before (experiment.py)
LAST_WORDS = 10.0  # seconds a worker has to end after its pipe closed


def messages(lines: Iterator[str], inbox: queue.Queue, wishes: dict[str, str], gone: threading.Event) -> None:
    """Read messages until the pipe closes: executions into the inbox, wishes for the run at hand beside it."""
    try:
        for line in lines:
            message = json.loads(line)
            if "run" in message:
                wishes.pop(message["run"], None)
                inbox.put(message)
            else:
                ((wish, run_id),) = message.items()
                wishes[run_id] = wish
    finally:  # also where what came was no message
        gone.set()
        inbox.put(None)
        threading.Timer(LAST_WORDS, os._exit, (1,)).start()  # a step that never ends must not outlive the server


def warm() -> None:
    """Load torch and run one discarded step, so that the first visitor does not wait for it."""
    for _ in train(Experiment(settings=Settings(depth=2, width=8, steps=1))):
        pass


def be_modest() -> None:
    """Leave processors and memory to others."""
    with suppress(AttributeError, OSError):
        os.nice(10)  # before torch is loaded: the page comes first
    import torch

    torch.set_num_threads(1)  # small layers on several threads cost 4 to 6 times the processor time
    with suppress(ImportError, AttributeError, OSError, ValueError):
        if not torch.cuda.is_available():  # CUDA maps far more than it uses
            import resource

            resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))


def main(directory: Path | str) -> None:
    """Execute runs of the store in `directory` until standard input closes."""
    be_modest()
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints must not look like a message
    inbox: queue.Queue = queue.Queue()
    wishes: dict[str, str] = {}
    gone = threading.Event()
    warm()  # first: on Windows the Fortran library in scipy's BLAS waits, as it loads, for a thread that reads stdin
    store = RunStore(directory)

    def tell(message: dict) -> None:
        print(json.dumps(message), file=out)

    with suppress(BrokenPipeError):
        tell({"ready": True})
        reader = threading.Thread(target=messages, args=(sys.stdin, inbox, wishes, gone), daemon=True)
        reader.start()
        while message := inbox.get():
            if "look" in message or "score" in message:
                tell({"looking": message})
                unkept = take_look(message, gone) if "look" in message else take_score(store, message["run"])
                tell({"looked": message, "unkept": unkept})
            else:
                tell({"ended": message["run"], "left": work_on(store, message, wishes, gone)})
        reader.join()  # it says what was wrong where it was told what is no message
    os._exit(0)  # the timer must not keep the process


store_at = lru_cache(4)(RunStore)


def take_look(message: dict, gone: threading.Event) -> str:
    """Take a look; why what it saw could not be kept, or nothing."""
    run_id, step = message["run"], message["step"]
    try:
        where = store_at(message["directory"])
        weights = where.snapshot(run_id, step)
        look(where, run_id, message["look"], message["options"], step, weights, gone.is_set)
    except KeyError:  # it was deleted meanwhile
        pass
    except Error as error:  # it can be taken again
        return told(error)
    return ""


def take_score(store: RunStore, run_id: str) -> str:
    """Score a stopped run; why that could not be kept, or nothing."""
    try:
        score(store, run_id)
    except (KeyError, Taken):  # deleted or resumed meanwhile
        pass
    except Unkept as error:
        return str(error)
    return ""


def work_on(store: RunStore, message: dict, wishes: dict[str, str], gone: threading.Event) -> list[tuple[str, int]]:
    """Train the run of a message as far as is asked or wished for, and take the looks that are due then; those that are
    left for the process that looks, (probe, step)."""
    run_id = message["run"]

    def wish() -> str | None:
        return "interrupt" if gone.is_set() else wishes.pop(run_id, None)

    try:
        status, due = train_run(store, run_id, wish, message.get("steps"), waits=True)
        if status in STEERED:
            return [(name, step) for name, step, _ in due]
        look_at(store, run_id, due, gone.is_set)
    except Taken:  # others train it, or have trained or stopped it while this process came up
        pass
    except (Unkept, Unable) as error:  # a sentence already
        failed(store, run_id, str(error))
    except MemoryError:
        failed(store, run_id, "there was not enough memory. Lower depth, width, batch_size, arms or seeds.")
    except Exception as error:
        with suppress(KeyError):  # it was deleted meanwhile
            store.run(run_id)
            traceback.print_exc()
        failed(store, run_id, f"{type(error).__name__}: {in_a_line(error)}")
    return []


def failed(store: RunStore, run_id: str, reason: str) -> None:
    with suppress(KeyError):  # it was deleted meanwhile
        store.change(run_id, status="failed", reason=reason)
