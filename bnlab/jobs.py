"""The queue and the worker processes behind it: start, pause, resume, step and stop a run.

A paused run holds no worker: pausing keeps a snapshot and frees the worker, and to resume is to execute again from it.
So nobody waits for a paused run, and it can be resumed after the server was started anew.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import deque
from contextlib import suppress

from .looker import Looker
from .process import Process
from .run import ALIVE, STEERED, UNDER_WAY, Run, Taken
from .store import RunStore

LONGEST_QUEUE = 200


class Jobs:
    """Executes the runs of a store on `workers` processes, first come, first served. Thread-safe.

    With workers=0 runs are queued and never executed. Under the lock the store is read but never written: to write can
    mean to wait for another process, and nobody else is to wait for that.
    """

    def __init__(self, store: RunStore, workers: int):
        self.store, self.lock, self.closing = store, threading.RLock(), False
        self.more: dict[str, int | None] = {}  # what was asked for while a run was still held: steps, None: all
        self.stopping: set[str] = set()  # runs that may have rested when their worker was told to stop
        self.queue: deque[tuple[str, int | None]] = deque()
        self.looker = Looker(store, asleep=not workers)
        self.size, self.workers = workers, []  # how many there are to be, those there are
        with suppress(sqlite3.Error):  # as on a full disk, on which a server can start; watch() tries again
            self.interrupt_abandoned()
        self.fill(min(1, workers))  # the others when it is ready: the server's first page needs the processor, too
        self.closed = threading.Event()
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self) -> None:
        """See now and then to the runs that wait here, and to those that others train or let wait."""
        while not self.closed.wait(ALIVE / 3):
            with suppress(sqlite3.Error, OSError):  # a full disk, or memory, may have room again
                self.hold()
                self.interrupt_abandoned()
                if self.queue:  # a run is still waiting that could not be given to a worker
                    self.fill(min(1, self.size))

    def hold(self) -> None:
        """Say in the store that somebody holds the runs that wait here."""
        for run_id, _ in self.queue.copy():
            with suppress(KeyError):  # it was deleted meanwhile
                self.reread(run_id)
        with self.lock:
            held = [run_id for run_id, _ in self.queue] + [w.run_id for w in self.workers if w.run_id]
        if held:
            self.store.hold(held)

    def interrupt_abandoned(self) -> None:
        """Runs that train or wait according to the store, but give no sign any more: whoever held them is gone."""
        for run in self.store.runs(*UNDER_WAY):
            if run.abandoned and not self.holds(run.id):
                why = "The server ended." if run.status == "queued" else "The process that trained it ended."
                with suppress(KeyError):  # it was deleted meanwhile
                    self.store.change(run.id, was=run, status="interrupted", reason=why)

    def reread(self, run_id: str) -> Run:
        """A run as it is now; it leaves the queue where others have trained, stopped or deleted it. Raises KeyError."""
        with self.lock:  # nobody queues it between what is read and what is done
            try:
                run = self.store.run(run_id)
            except KeyError:
                self.leave(run_id)
                raise
            if run.status != "queued":
                self.leave(run_id)
            return run

    def leave(self, run_id: str) -> None:
        """Take a run out of the queue, if it waits there, with what was asked for meanwhile."""
        if (waiting := self.position(run_id)) is not None:
            del self.queue[waiting]
            self.more.pop(run_id, None)

    def refuse_others(self, run: Run) -> None:
        """Raises Taken where another process trains the run: nobody here can steer it."""
        if run.alive and not self.holds(run.id):
            raise Taken(run.id)

    def start(self, run_id: str) -> None:
        """Queue a run; a paused, stopped or interrupted one goes on where it was. Raises KeyError, and ValueError with
        a sentence when the run cannot go on or the queue is full."""
        self.put(run_id, None)

    resume = start

    def step(self, run_id: str) -> None:
        """Execute one step of a run and pause. Raises as start() does."""
        self.put(run_id, 1)

    def put(self, run_id: str, steps: int | None, again: bool = False) -> None:
        """Queue a run, or add to what it goes on with. `again`: a run that came to rest goes on with what was asked for
        till then, unless it is told to rest before it waits."""
        entered = False
        while not entered:  # by what the run is now, until nobody has changed it meanwhile
            with self.lock:
                run = self.reread(run_id)
                if again and run_id not in self.more:
                    return
                self.stopping.discard(run_id)
                if not again and (run_id in self.more or (run.status in UNDER_WAY and self.holds(run_id))):
                    waits = self.more.get(run_id, 0)  # a run that goes on anyway forgets it when it is told to rest
                    self.more[run_id] = waits + steps if steps and waits is not None else None
                    return
                self.refuse_others(run)
                if run.status in ("done", "diverged"):
                    raise ValueError(f"the run is {run.status}; there is nothing left to train. Reset starts it anew.")
                if len(self.queue) >= LONGEST_QUEUE:
                    raise ValueError(f"{LONGEST_QUEUE} runs are waiting already. Try again when some have ended.")
                at_it = self.executing(run_id)  # still, as a worker does that looks at a run come to rest
            if self.store.change(run_id, was=run, status="queued", reason=""):
                with self.lock:
                    faster = self.position(run_id) is not None or self.executing(run_id) != at_it  # was another tab
                    if again and run_id not in self.more:
                        return
                    if entered := not faster:
                        self.queue.append((run_id, self.more.pop(run_id) if again else steps))
        self.fill(min(1, self.size))

    def holds(self, run_id: str) -> bool:
        """Whether the run waits here or is being executed, or something that was asked of it is still to be done."""
        return run_id in self.more or run_id in self.stopping or self.has(run_id)

    def has(self, run_id: str) -> bool:
        """Whether the run waits here or is being executed."""
        return self.position(run_id) is not None or bool(self.executing(run_id))

    def executing(self, run_id: str) -> list[Process]:
        """The workers that are at the run."""
        return [worker for worker in self.workers if worker.run_id == run_id]

    def pause(self, run_id: str) -> None:
        """Let a run rest after the step it is at; its worker is free for others. Raises as stop() does."""
        self.end(run_id, "pause", "paused")

    def stop(self, run_id: str) -> None:
        """End a run after the step it is at; what was recorded stays. Raises KeyError, and ValueError with a sentence
        where another process trains it."""
        self.end(run_id, "stop", "stopped")

    def ending(self, run_id: str) -> bool:
        """Whether the run was asked to stop and its worker is still at it."""
        return run_id in self.stopping

    def end(self, run_id: str, wish: str, status: str) -> None:
        ended = False
        while not ended:  # by what the run is now, until nobody has changed it meanwhile
            with self.lock:
                if wish == "pause" and run_id in self.stopping:
                    return  # it is to rest anyway
                self.more.pop(run_id, None)
                at_it = self.executing(run_id)
                for worker in at_it:
                    worker.tell(**{wish: run_id})
                if at_it:
                    (self.stopping.add if wish == "stop" else self.stopping.discard)(run_id)
                    return
                run = self.reread(run_id)
                self.refuse_others(run)
                if run.ended:
                    return
            ended = self.store.change(run_id, was=run, status=status, reason="")
        with suppress(KeyError):  # it was deleted meanwhile
            self.reread(run_id)  # out of the queue, but where it was resumed meanwhile
        if wish == "stop":
            self.looker.score(run_id, run.step)

    def position(self, run_id: str) -> int | None:
        """How many runs are ahead of it in the queue; None if it does not wait. Never waits: the server's one thread
        asks, and whoever holds the lock may be waiting for the disk."""
        return next((i for i, (waiting, _) in enumerate(self.queue.copy()) if waiting == run_id), None)

    def stop_again(self, run_id: str) -> None:
        """Stop a run that came to rest before its worker read that it was to stop."""
        stopped = False
        try:
            while run_id in self.stopping and not stopped:  # else it was resumed meanwhile
                if (run := self.store.run(run_id)).status != "paused":
                    return
                stopped = self.store.change(run_id, was=run, status="stopped", reason="")
        finally:
            self.stopping.discard(run_id)
        if stopped:
            self.looker.score(run_id, run.step)

    def fill(self, size: int) -> None:
        """Have at least so many workers, unless the server ends, and give them what waits."""
        with suppress(OSError), self.lock:  # no more processes, or memory: those there go on, and watch() tries again
            while len(self.workers) < size and not self.closing:
                self.workers.append(Process(self))
        self.dispatch()

    def dispatch(self) -> None:
        """Give runs that wait to free workers, but for those that others have trained, stopped or deleted. Where
        nothing can be kept, as on a full disk, they wait on, and watch() tries again."""
        with suppress(sqlite3.Error):
            while (waiting := self.queue.copy()) and any(worker.run_id is None for worker in self.workers):
                run_id, steps = first = waiting[0]
                with suppress(KeyError):
                    if self.reread(run_id).status == "queued":
                        self.store.need_room()  # raises before a worker fails over what it cannot keep
                        self.store.hold([run_id])
                        with self.lock:
                            free = next((worker for worker in self.workers if worker.run_id is None), None)
                            if free and self.queue and self.queue[0] is first:  # else others have given it meanwhile
                                self.queue.popleft()
                                free.run_id = run_id
                                free.tell(run=run_id, steps=steps)

    def follow(self, worker: Process) -> None:
        """Hear one worker until it ends; fail the run it dies with and put another in its place."""
        ready = False
        for line in worker.popen.stdout:
            message = json.loads(line)
            if not ready:
                self.fill(self.size)
            ready = True
            if worker.run_id and message.get("ended") == worker.run_id:
                with self.lock:
                    ended, worker.run_id = worker.run_id, None
                self.rested(ended, message["left"])
                self.dispatch()
        how = worker.ending()
        with self.lock:
            if self.closing:
                return
            self.workers.remove(worker)
            lost = worker.run_id if worker.run_id and not self.has(worker.run_id) else None  # else it was resumed
            self.more.pop(lost, None)
            self.stopping.discard(lost)
        if lost:
            with suppress(KeyError, sqlite3.Error):  # where it cannot be said the run is interrupted later
                run = self.store.run(lost)
                if run.status in UNDER_WAY:  # else it only looked, or scored
                    self.store.change(run.id, was=run, status="failed", reason=f"its worker ended with {how}")
        if ready:  # one that never came up would fail again, and again: the next run tries
            self.fill(self.size)
        elif not self.workers:
            self.give_up(worker.last_words)

    def rested(self, run_id: str, left: list[tuple[str, int]]) -> None:
        """A run has come to rest: have the looks taken that are left, and do what was asked for while it was held."""
        for probe, step in left:
            with suppress(ValueError, OSError):  # none can be told: a figure that needs it will ask again
                self.looker.look(self.store, run_id, probe, {}, step)
        with self.lock:
            if self.has(run_id):  # it waits again, and what was asked for with it
                return
            asked = run_id in self.more
        with suppress(KeyError, ValueError, sqlite3.Error):  # it was deleted, goes on elsewhere, or nothing can be kept
            self.stop_again(run_id)
            if asked and self.store.run(run_id).status in STEERED:
                return self.put(run_id, None, again=True)
        self.more.pop(run_id, None)

    def give_up(self, why: str) -> None:
        """No worker can be started: say so for every run that waits."""
        self.empty("failed", f"no worker process could be started: {why[:200]}")

    def empty(self, status: str, reason: str) -> None:
        """Nothing waits here any more; the runs that did have this status, but for those that others have taken."""
        with self.lock:
            waited = [run_id for run_id, _ in self.queue]
            for run_id in waited:
                self.leave(run_id)
        with suppress(sqlite3.Error):  # whoever opens the store next sees that nobody holds them
            for run_id in waited:
                with suppress(KeyError):  # it was deleted meanwhile
                    if (run := self.store.run(run_id)).status == "queued":
                        self.store.change(run_id, was=run, status=status, reason=reason)

    def close(self) -> None:
        """Close the pipes; the workers keep what they have and end. Runs in the queue become interrupted."""
        self.closed.set()
        with self.lock:
            self.closing = True
            processes = self.workers + self.looker.close()
        self.empty("interrupted", "The server ended.")
        for process in processes:
            process.close()
        for process in processes:
            process.join()
