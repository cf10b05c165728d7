"""The queue and the worker processes behind it: start, pause, resume, step and stop a run.

A paused run holds no worker: pausing keeps a snapshot and frees the worker, and to resume is to execute again from it.
So nobody waits for a paused run, and it can be resumed after the server was started anew.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import suppress

from .run import ALIVE, Run
from .store import RunStore

LONGEST_QUEUE = 200
ABOVE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # where the package lies, for the worker to find it


class Worker:
    """One process `python -m bnlab work DIR`, and the run it is executing."""

    def __init__(self, jobs: Jobs):
        self.run_id: str | None = None
        self.last_words = ""
        path = os.pathsep.join(filter(None, [ABOVE, os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bnlab", "work", str(jobs.store.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
        )
        self.threads = [
            threading.Thread(target=self.hear, daemon=True),
            threading.Thread(target=jobs.follow, args=(self,), daemon=True),
        ]
        for thread in self.threads:
            thread.start()

    def hear(self) -> None:
        """Remember the last line of standard error: the reason, should the process die."""
        for line in self.process.stderr:
            self.last_words = line.strip() or self.last_words

    def tell(self, **message: object) -> None:
        with suppress(OSError, ValueError):  # a dead worker is met by `follow`
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()

    def close(self) -> None:
        """Let go of the pipes of a process that has ended."""
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            with suppress(OSError):  # what was still to be written to it is of no use
                pipe.close()


class Jobs:
    """Executes the runs of a store on `workers` processes, first come, first served. Thread-safe.

    With workers=0 runs are queued and never executed.
    """

    def __init__(self, store: RunStore, workers: int):
        self.store, self.lock, self.closing = store, threading.RLock(), False
        self.more: dict[str, int] = {}  # steps asked for while a run was still at its last one
        self.stopping: set[str] = set()  # runs that may have rested when their worker was told to stop
        self.queue: deque[tuple[str, int | None]] = deque()
        self.wanted, self.looker = workers, None  # the process that looks starts with the first look
        self.looking: dict[str, threading.Event] = {}
        self.workers: list[Worker] = []
        for run in store.runs("queued"):
            store.change(run.id, status="interrupted", reason="The server ended.")
        self.interrupt_abandoned()
        self.workers += [Worker(self) for _ in range(workers)]
        self.closed = threading.Event()
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self) -> None:
        """See now and then to the runs that others train."""
        while not self.closed.wait(ALIVE / 3):
            self.interrupt_abandoned()

    def interrupt_abandoned(self) -> None:
        """Runs that train according to the store, but give no sign any more: whoever trained them is gone."""
        with self.lock:
            for run in self.store.runs("running"):
                if not run.alive and not self.holds(run.id):
                    with suppress(KeyError):  # it was deleted meanwhile
                        self.store.change(run.id, status="interrupted", reason="The process that trained it ended.")

    def refuse_others(self, run: Run) -> None:
        """Raises ValueError with a sentence where another process trains the run: nobody here can steer it."""
        if run.alive and not self.holds(run.id):
            raise ValueError(
                "this run is trained by another process, as from the command line; stop it there with Ctrl+C."
            )

    def start(self, run_id: str) -> None:
        """Queue a run; a paused, stopped or interrupted one goes on where it was. Raises KeyError, and ValueError with
        a sentence when the run cannot go on or the queue is full."""
        self.put(run_id, None)

    resume = start

    def step(self, run_id: str) -> None:
        """Execute one step of a run and pause. Raises as start() does."""
        self.put(run_id, 1)

    def put(self, run_id: str, steps: int | None) -> None:
        with self.lock:
            run = self.store.run(run_id)
            if run.status in ("queued", "running") and self.holds(run_id):
                self.stopping.discard(run_id)
                if steps:
                    self.more[run_id] = self.more.get(run_id, 0) + steps
                return
            self.refuse_others(run)
            if run.status in ("done", "diverged"):
                raise ValueError(f"the run is {run.status}; there is nothing left to train. Reset starts it anew.")
            if len(self.queue) >= LONGEST_QUEUE:
                raise ValueError(f"{LONGEST_QUEUE} runs are waiting already. Try again when some have ended.")
            self.store.change(run_id, status="queued", reason="")
            self.queue.append((run_id, steps))
            self.dispatch()

    def holds(self, run_id: str) -> bool:
        """Whether the run waits here or is being executed."""
        return self.position(run_id) is not None or any(w.run_id == run_id for w in self.workers)

    def pause(self, run_id: str) -> None:
        """Let a run rest after the step it is at; its worker is free for others. Raises as stop() does."""
        self.end(run_id, "pause", "paused")

    def stop(self, run_id: str) -> None:
        """End a run after the step it is at; what was recorded stays. Raises KeyError, and ValueError with a sentence
        where another process trains it."""
        self.end(run_id, "stop", "stopped")

    def end(self, run_id: str, wish: str, status: str) -> None:
        with self.lock:
            self.more.pop(run_id, None)
            executing = [worker for worker in self.workers if worker.run_id == run_id]
            for worker in executing:
                worker.tell(**{wish: run_id})
            if executing:
                (self.stopping.add if wish == "stop" else self.stopping.discard)(run_id)
                return
            run = self.store.run(run_id)
            self.refuse_others(run)
            waiting = self.position(run_id)
            if waiting is not None:
                del self.queue[waiting]
            if waiting is not None or not run.ended:
                self.store.change(run_id, status=status, reason="")
                if wish == "stop" and (looker := self.the_looker()):
                    looker.tell(run=run_id, score=True)

    def position(self, run_id: str) -> int | None:
        """How many runs are ahead of it in the queue; None if it does not wait."""
        with self.lock:
            return next((i for i, (waiting, _) in enumerate(self.queue) if waiting == run_id), None)

    def look(self, store: RunStore, run_id: str, probe: str, options: Mapping, step: int, wait: float = 0) -> None:
        """Have a probe look at a stored run, in a process of its own beside the trainings; waits for it at most `wait`
        seconds. Raises ValueError with a sentence when too many looks are waiting."""
        where = str(store.directory)
        message = {"look": probe, "run": run_id, "options": dict(options), "step": step, "directory": where}
        key = json.dumps(message, sort_keys=True)
        with self.lock:
            looker = self.the_looker()
            if looker is None:
                return
            if key not in self.looking and len(self.looking) >= LONGEST_QUEUE:
                raise ValueError("The lab is looking at too much already. Try again in a moment.")
            done = self.looking.get(key)
            if done is None:
                done = self.looking[key] = threading.Event()
                looker.tell(**message)
        done.wait(wait)

    def the_looker(self) -> Worker | None:
        """The process that looks, beside those that train; None where nothing is executed."""
        if self.looker is None and self.wanted and not self.closing:
            self.looker = Worker(self)
        return None if self.closing else self.looker

    def looking_at(self, run_id: str) -> set[str]:
        """The probes that are looking at a run, or waiting to."""
        with self.lock:
            return {message["look"] for message in map(json.loads, self.looking) if message["run"] == run_id}

    def looked(self, message: Mapping) -> None:
        if done := self.looking.pop(json.dumps(message, sort_keys=True), None):
            done.set()

    def stop_again(self, run_id: str) -> None:
        """Stop a run that came to rest before its worker read that it was to stop."""
        self.stopping.discard(run_id)
        with suppress(KeyError):  # it was deleted
            if self.store.run(run_id).status == "paused":
                self.stop(run_id)

    def dispatch(self) -> None:
        """Give waiting runs to free workers."""
        for worker in self.workers:
            if self.queue and worker.run_id is None:
                worker.run_id, steps = self.queue.popleft()
                worker.tell(run=worker.run_id, steps=steps)

    def follow(self, worker: Worker) -> None:
        """Hear one worker until it ends; fail the run it dies with and put another in its place."""
        ready = False
        for line in worker.process.stdout:
            message = json.loads(line)
            with self.lock:
                ready = True
                if "looked" in message:
                    self.looked(message["looked"])
                if message.get("ended") == worker.run_id is not None:
                    ended, worker.run_id = worker.run_id, None
                    for probe, step in message["left"]:
                        with suppress(ValueError):  # too many wait: a figure that needs it will ask again
                            self.look(self.store, ended, probe, {}, step)
                    if ended in self.stopping and not self.holds(ended):
                        self.stop_again(ended)
                    if more := self.more.pop(ended, 0):
                        with suppress(KeyError, ValueError):  # it is done, or was deleted
                            self.put(ended, more)
                    self.dispatch()
        code = worker.process.wait()
        worker.threads[0].join(1)
        worker.close()
        with self.lock:
            if self.closing:
                return
            if worker is self.looker:  # the next look starts another
                self.looker = None
                why = f"the process that looked ended with {ending(code, worker)}."
                for text in list(self.looking):
                    message = json.loads(text)
                    with suppress(KeyError):  # the run was deleted meanwhile
                        where = RunStore(message["directory"])
                        where.keep_wrong(message["run"], message["look"], message["options"], message["step"], why)
                    self.looked(message)
                return
            self.workers.remove(worker)
            if worker.run_id and not self.holds(worker.run_id):  # resumed elsewhere while it was looked at
                self.more.pop(worker.run_id, None)
                self.stopping.discard(worker.run_id)
                with suppress(KeyError):
                    if self.store.run(worker.run_id).status in ("queued", "running"):  # else it only looked, or scored
                        reason = f"its worker ended with {ending(code, worker)}"
                        self.store.change(worker.run_id, status="failed", reason=reason)
            if ready:  # one that never came up would fail again, and again
                self.workers.append(Worker(self))
            elif not self.workers:
                self.give_up(worker.last_words)
            self.dispatch()

    def give_up(self, why: str) -> None:
        """No worker can be started: say so for every run that waits."""
        for run_id, _ in self.queue:
            self.store.change(run_id, status="failed", reason=f"no worker process could be started: {why[:200]}")
        self.queue.clear()

    def close(self) -> None:
        """Close the pipes; the workers keep what they have and end. Runs in the queue become interrupted."""
        self.closed.set()
        with self.lock:
            self.closing = True
            for run_id, _ in self.queue:
                with suppress(KeyError):
                    self.store.change(run_id, status="interrupted", reason="The server ended.")
            self.queue.clear()
            workers = self.workers + ([self.looker] if self.looker else [])
        for worker in workers:
            with suppress(OSError):
                worker.process.stdin.close()
        for worker in workers:
            try:
                worker.process.wait(15)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            for thread in worker.threads:
                thread.join(5)


def ending(code: int, worker: Worker) -> str:
    """How a process ended, in words."""
    return f"signal {-code}" if code < 0 else f"exit code {code}: {worker.last_words[:200]}"
