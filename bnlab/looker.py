"""The process that looks: probes at stored runs, beside those that train, and the last scores of stopped runs."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress

from .database import Error, told
from .process import Process
from .store import RunStore

MOST = 200  # looks and scorings that wait, above which no look is taken
NO_PROCESS = "The process that computes this chart cannot be started"


class Looker:
    """Has probes look, first come, first served. Thread-safe. The process starts with the first look; with `asleep` it
    never does, and nobody looks."""

    def __init__(self, store: RunStore, asleep: bool = False):
        self.store, self.lock, self.asleep = store, threading.RLock(), asleep
        self.process: Process | None = None
        self.waiting: dict[str, Future[str]] = {}  # by the message that asked, in order; scorings, too

    def look(self, store: RunStore, run_id: str, probe: str, options: Mapping, step: int) -> Future[str]:
        """Have a probe look at a stored run before update `step`. The result is there when it has, or nobody will:
        empty, or a sentence that says why what it saw could not be kept. Raises ValueError with a sentence when too
        many looks are waiting, or no process can be started."""
        where = str(store.directory)
        message = {"look": probe, "run": run_id, "options": dict(options), "step": step, "directory": where}
        key = json.dumps(message, sort_keys=True)
        with self.lock:
            if self.asleep:
                nobody: Future[str] = Future()
                nobody.set_result("")
                return nobody
            if key not in self.waiting and len(self.waiting) >= MOST:
                raise ValueError("Too many charts are being computed already. Try again in a moment.")
            done = self.waiting.get(key)
            if done is None:
                try:  # first: where it cannot be told, nothing waits, and it can be asked for again
                    self.tell(**message)
                except OSError as error:
                    raise ValueError(f"{NO_PROCESS}: {error.strerror or error}. Try again in a moment.") from error
                done = self.waiting[key] = Future()
            return done

    def score(self, run_id: str, step: int) -> None:
        """Score a run that was stopped while it rested at a step."""
        message = {"run": run_id, "score": step}
        with self.lock, suppress(OSError):  # it is stopped all the same
            if not self.asleep and (key := json.dumps(message, sort_keys=True)) not in self.waiting:
                self.tell(**message)
                self.waiting[key] = Future()

    def tell(self, **message: object) -> None:
        """Raises OSError where no process can be started."""
        self.process = self.process or Process(self)
        self.process.tell(**message)

    def looking_at(self, run_id: str) -> list[tuple[str, int, dict]]:
        """The looks at a run that are being taken or wait: probe, step and options."""
        with self.lock:
            waiting = [message for message in map(json.loads, self.waiting) if message["run"] == run_id]
        return [(message["look"], message["step"], message["options"]) for message in waiting if "look" in message]

    def looked(self, message: Mapping, unkept: str = "") -> None:
        if done := self.waiting.pop(json.dumps(message, sort_keys=True), None):
            done.set_result(unkept)

    def follow(self, process: Process) -> None:
        """Hear the process until it ends. If it dies, the look it died over says so, and another takes what waits; a
        scoring it died over is not taken again. One that never came up died over what waits first: the next would."""
        first, ready, unkept = None, False, ""  # what it is at
        for line in process.popen.stdout:
            message, ready = json.loads(line), True
            with self.lock:
                if "looked" in message:
                    self.looked(message["looked"], message["unkept"])
                first = message.get("looking")
        why = f"the process that computed it ended with {process.ending()}."
        if not ready:
            first = json.loads(next(iter(self.waiting.copy()), "null"))
        if first and "look" in first and not self.asleep:
            try:
                where = RunStore(first["directory"])  # not under the lock: others are not to wait where this one does
                where.keep_wrong(first["run"], first["look"], first["options"], first["step"], why)
            except KeyError:  # the run was deleted meanwhile
                pass
            except (Error, OSError) as error:
                unkept = told(error) if isinstance(error, Error) else str(error)
        with self.lock:
            if self.asleep:
                return
            self.process = None
            if first:
                self.looked(first, unkept)
            for message in [*map(json.loads, self.waiting)]:
                try:
                    self.tell(**message)
                except OSError:  # nobody is there to take it: a figure that needs it will ask again
                    self.looked(message)

    def close(self) -> list[Process]:
        """Look no more; the process that is to end, if there is one."""
        with self.lock:
            self.asleep = True
            return [self.process] if self.process else []
