"""What one server process holds open: the store, the shipped example, the workers.

The environment says where, how much and for whom: BNLAB_STORE (a directory, default "runs"), BNLAB_WORKERS (default:
cores) and BNLAB_HOSTS (names, default none but this machine's). One that is empty says nothing.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from functools import cache
from pathlib import Path
from threading import Lock

from .database import FILE
from .jobs import Jobs
from .run import Run
from .store import RunStore

EXAMPLE = Path(__file__).with_name("example")  # a store with one finished run of the default experiment
MOST_WORKERS = 1024
COPYING = Lock()  # @cache lets the first visitors in side by side


def directory() -> Path:
    return Path(os.environ.get("BNLAB_STORE") or "runs")


def workers() -> int:
    """How many runs train at once. Raises ValueError with a sentence."""
    told = os.environ.get("BNLAB_WORKERS", "").strip() or str(os.cpu_count() or 1)
    if not re.fullmatch(r"\d{1,4}", told) or int(told) > MOST_WORKERS:
        raise ValueError(f"BNLAB_WORKERS is {told[:40]}; allowed is a whole number from 0 to {MOST_WORKERS:,}.")
    return int(told)


def hosts() -> list[str]:
    """By which names the browsers of others ask for the lab. Raises ValueError with a sentence."""
    names = [name.strip().lower() for name in os.environ.get("BNLAB_HOSTS", "").split(",") if name.strip()]
    for name in names:
        if not re.fullmatch(r"\*|(\*\.)?[\w.-]+", name):  # no other name is ever met with
            raise ValueError(
                f"BNLAB_HOSTS has {name[:40]}; allowed are names and addresses without http:// and port, and commas "
                "between them: room,192.168.0.7."
            )
    return names


@cache
def store() -> RunStore:
    """The runs of this server's visitors."""
    return RunStore(directory())


@cache
def example() -> RunStore:
    """The recorded run that is shown before the first click, copied beside the store, where looks at it are kept."""
    there = directory() / "example"
    shipped, copy = EXAMPLE / FILE, there / FILE
    with COPYING:
        if shipped.exists() and (not copy.exists() or copy.stat().st_mtime < shipped.stat().st_mtime):
            there.mkdir(parents=True, exist_ok=True)
            unfinished = there / f"{FILE}.{secrets.token_hex(4)}"  # its own: another server may be copying, too
            try:
                shutil.copyfile(shipped, unfinished)  # not its mode, which may be read-only
                for part in ("-wal", "-shm"):  # what belongs to an older copy
                    (there / f"{FILE}{part}").unlink(missing_ok=True)
                os.replace(unfinished, copy)
            except OSError:  # a place that is read-only, or held by another server, as on Windows: the older one serves
                if not copy.exists():
                    raise
            finally:
                unfinished.unlink(missing_ok=True)
    return RunStore(there)


@cache
def jobs() -> Jobs:
    """The queue and the worker processes in front of `store()`."""
    size = workers()  # first: where it is refused nothing is made
    return Jobs(store(), size)


def example_run() -> Run | None:
    """The run shown before the first click; None where none was shipped."""
    return next(iter(example().runs(limit=1)), None)


def holder(run_id: str) -> RunStore:
    """The store that holds a run. Raises KeyError with a sentence where none does."""
    try:
        example().run(run_id)
    except KeyError:
        store().run(run_id)  # its KeyError is the sentence
        return store()
    return example()


def close() -> None:
    """Stop the workers, which write what they hold; used when the server stops, and by tests."""
    if jobs.cache_info().currsize:
        jobs().close()
    for held in (jobs, store, example):
        held.cache_clear()
