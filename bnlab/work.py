"""The process that executes runs: `python -m bnlab work DIR`, fed over a pipe, warm before the first message.

Messages are lines of JSON. In: {"run": id} or {"run": id, "steps": 1} to execute, {"pause": id}, {"stop": id};
{"run": id, "score": step} to score a run that rested there when it was stopped; {"look": probe, "run": id, ...} to look
at a stored run. Out: {"ready": true}, {"ended": id, "left": [[probe, step], ...]} with the looks that are still to be
taken, and {"looked": message} when a run was looked at, or scored.
When the pipe closes, the worker keeps what it has and ends, also mid-run.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import numpy as np

from .experiment import Experiment, Settings
from .fork import vectors
from .lineage import seen
from .probes import PROBES, Copies, checked, schedule
from .run import Taken, outbreak, outbreaks
from .store import GONE, RunStore
from .train import device_for, score_interval, scoring_cost, train

MEMORY = 8 * 2**30  # bytes of data a worker may hold; what an experiment needs was checked before (experiment.py)
LONG_SCORING = 3e10  # multiply-adds, some seconds' worth, above which a stopped run is not scored: others wait for it
STEERED = (
    "paused",
    "stopped",
)  # by someone who may go on at once: the looks that are due are for the process that looks
LAST_WORDS = 10.0  # seconds a worker has to end after its pipe closed


Due = list[tuple[str, int, list[np.ndarray]]]  # looks to be taken: the probe, the step, the weights before its update


def execute(store: RunStore, run_id: str, asked: Callable[[], str | None], steps: int | None = None) -> None:
    """Train a run from its newest snapshot, or from the start, and keep what is seen, also by the looks it leaves."""
    _, due = train_run(store, run_id, asked, steps)
    look_at(store, run_id, due)


def look_at(store: RunStore, run_id: str, due: Due, gone: Callable[[], bool] = lambda: False) -> None:
    """Take the looks that are due, until `gone()`."""
    with suppress(KeyError):  # it was deleted meanwhile
        for name, step, weights in due:
            look(store, run_id, name, {}, step, weights, gone)


def train_run(
    store: RunStore, run_id: str, asked: Callable[[], str | None], steps: int | None = None
) -> tuple[str, Due]:
    """Train a run, and keep what is seen. The status it ends with, and the live looks that are due then.

    `asked()` is looked at after every step, after every look and between its pieces: "pause", "stop" or "interrupt"
    ends the training there, with a snapshot to go on from; where it is stopped it is scored. `steps` is a number of
    steps after which to pause, not counting those that were recorded before and are trained again. Live looks come one
    by one, spread over the steps to the next scoring. Sets the run's status; raises what training raises, and Taken,
    which leaves the run as it is, where another process trains it.
    """
    run = store.run(run_id)
    device = device_for(run.experiment, run.device)
    run = store.claim(run_id, device)
    status, reason, done, wish, looks = "done", "", 0, None, schedule(run.experiment)
    due: Due = []
    apart, every = 1, score_interval(run.experiment)  # steps between two looks: a curve stands still for one at most

    def take(count: int) -> str | None:
        """Take looks; what is wished for meanwhile ends that, and the look it came into is due again."""
        for name, step, weights in due[:count]:
            for _ in looking(store, run_id, name, {}, step, weights):
                if wish := asked():
                    return wish
            due.pop(0)
            if wish := asked():
                return wish
        return None

    records = train(run.experiment, device=device, start=beginning(store, run_id), ahead=run.step < 0)
    with store.writer(run_id) as writer:
        if run.step < 0:
            writer.keep(next(records))  # whoever has just pressed Train sees it before the first scoring
        for record in records:
            writer.keep(record)
            if record.weights:
                wish = take(len(due))
                due += [(name, record.step, record.weights) for name, n in looks.items() if record.step % n == 0]
                apart = max(1, every // (len(due) + 1))
            elif record.step % apart == 0:
                wish = take(1)
            done += record.step > run.step
            if not record.parts:
                break
            last = record.step + 1 == run.experiment.settings.steps  # its update was made: nothing is left to rest from
            wish = wish or asked() or ("pause" if done == steps and not last else None)
            if writer.all_diverged:
                status, reason = "diverged", diverged(run.experiment, writer.diverged)
                break
            if wish:
                writer.snapshot(record.step + 1, record.snapshot())
                status = {"pause": "paused", "stop": "stopped", "interrupt": "interrupted"}[wish]
                reason = "The process that trained it was ended; it can be resumed." if wish == "interrupt" else ""
                break
    store.change(run_id, status=status, reason=reason)
    if status == "stopped" and record.step >= run.step and scoring_cost(run.experiment) < LONG_SCORING:
        writer.score(records.send(True))  # whoever stops has not waited for it
    return status, due if wish != "interrupt" else []


def score(store: RunStore, run_id: str) -> None:
    """Score a run that was stopped while it rested at its newest snapshot, as one that was to end there."""
    run, start = store.run(run_id), beginning(store, run_id)
    if start and start[0] == run.step + 1 and scoring_cost(run.experiment) < LONG_SCORING:
        settings = run.experiment.settings.model_copy(update={"steps": start[0]})
        ending = run.experiment.model_copy(update={"settings": settings})
        with store.writer(run_id) as writer:
            writer.score(next(train(ending, device=device_for(ending, run.device), start=start)))


def beginning(store: RunStore, run_id: str) -> tuple[int, list[np.ndarray]] | None:
    """Where a run goes on: its newest snapshot, or that of the run it was forked from; None: initial weights."""
    if last := store.last_snapshot(run_id):
        return last[0], [np.frombuffer(data, np.float32) for data in last[1]]
    if origin := store.origin(run_id):
        parent, arm, step = origin
        found = [np.frombuffer(data, np.float32) for data in store.snapshot(parent, step)]
        if not found:
            raise ValueError(GONE.format(step))
        return step, vectors(store.run(parent).experiment, arm, found, store.run(run_id).experiment)
    return None


def look(
    store: RunStore,
    run_id: str,
    probe: str,
    options: Mapping,
    step: int,
    weights: list[np.ndarray],
    gone: Callable[[], bool] = lambda: False,
) -> None:
    """Let a probe look at copies of the networks before update `step` and keep what it sees; where it cannot, the
    reason as a sentence under the name "wrong". Nothing is kept of a look that `gone()` ends."""
    for _ in () if gone() else looking(store, run_id, probe, options, step, weights):
        if gone():
            return


def looking(
    store: RunStore, run_id: str, probe: str, options: Mapping, step: int, weights: list[np.ndarray]
) -> Iterator[None]:
    """The same piece by piece."""
    options = checked(probe, options)
    for last in (False, True):
        try:
            if not weights:
                raise ValueError(f"the weights of step {step:,} have made room. Raise budget_mb to keep more.")
            back = seen(store.trace(run_id)) if PROBES[probe].back else ()
            found = yield from copies(store, run_id).looking(probe, options, step, weights, back)
        except Exception as error:  # looking changes nothing: a training goes on
            if used_up(error) and not last:
                copies.cache_clear()
                continue  # once more, when what the error holds is let go, too
            store.keep_wrong(run_id, probe, options, step, " ".join(str(error).split())[:200])
            if not isinstance(error, ValueError):  # of those the sentence says all
                traceback.print_exc()
        else:
            store.keep_look(run_id, probe, options, step, found)
        return


@lru_cache(1)
def copies(store: RunStore, run_id: str) -> Copies:
    return Copies(store.run(run_id).experiment)


def used_up(error: Exception) -> bool:
    """Whether there was no memory, in Python's words or in those of torch's allocator."""
    return isinstance(error, MemoryError) or "allocate memory" in str(error) or "not enough memory" in str(error)


def diverged(experiment: Experiment, where: dict[tuple[int, int], tuple[int, int]]) -> str:
    """One sentence that says which network diverged first, or which did at one step, and where."""
    first, place = outbreak(where.values())
    if len(where) == 1:
        return f"the network diverged at step {first:,} in {place}. Lower the learning rate."
    who = [f"{experiment.arms[arm].label!r} in {at}" for arm, (step, at) in outbreaks(where).items() if step == first]
    return f"every network diverged, the first at step {first:,}: {', '.join(who)}. Lower the learning rate."


def messages(lines: Iterator[str], inbox: queue.Queue, wishes: dict[str, str], gone: threading.Event) -> None:
    """Read messages until the pipe closes: executions into the inbox, wishes for the run at hand beside it."""
    for line in lines:
        message = json.loads(line)
        if "run" in message:
            wishes.pop(message["run"], None)
            inbox.put(message)
        else:
            ((wish, run_id),) = message.items()
            wishes[run_id] = wish
    gone.set()
    inbox.put(None)
    threading.Timer(LAST_WORDS, os._exit, (1,)).start()  # a step that never ends must not outlive the server


def warm() -> None:
    """Load torch and run one discarded step, so that the first visitor does not wait for it."""
    for _ in train(Experiment(settings=Settings(depth=2, width=8, steps=1))):
        pass


def main(directory: Path | str) -> None:
    """Execute runs of the store in `directory` until standard input closes."""
    with suppress(AttributeError, OSError):
        os.nice(10)  # before torch is loaded: the page comes first
    import torch

    torch.set_num_threads(1)  # small layers on several threads cost 4 to 6 times the processor time
    with suppress(ImportError, AttributeError, OSError, ValueError):
        if not torch.cuda.is_available():  # CUDA maps far more than it uses
            import resource

            resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints must not look like a message
    inbox: queue.Queue = queue.Queue()
    wishes: dict[str, str] = {}
    gone = threading.Event()
    threading.Thread(target=messages, args=(sys.stdin, inbox, wishes, gone), daemon=True).start()
    warm()
    store = RunStore(directory)
    with suppress(BrokenPipeError):
        print(json.dumps({"ready": True}), file=out)
        while message := inbox.get():
            run_id = message["run"]
            if "look" in message:
                where, step = store_at(message["directory"]), message["step"]
                with suppress(KeyError):  # it was deleted meanwhile
                    weights = [np.frombuffer(data, np.float32) for data in where.snapshot(run_id, step)]
                    look(where, run_id, message["look"], message["options"], step, weights, gone.is_set)
                print(json.dumps({"looked": message}), file=out)
                continue
            if "score" in message:
                try:
                    with suppress(KeyError):  # it was deleted meanwhile
                        score(store, run_id)
                except Exception:  # it is stopped all the same, and the looks that wait are to go on
                    traceback.print_exc()
                print(json.dumps({"looked": message}), file=out)
                continue
            left = []
            try:
                wish = lambda run_id=run_id: "interrupt" if gone.is_set() else wishes.pop(run_id, None)  # noqa: E731
                status, due = train_run(store, run_id, wish, message.get("steps"))
                if status in STEERED:
                    left = [(name, step) for name, step, _ in due]
                else:
                    look_at(store, run_id, due, gone.is_set)
            except Taken:  # it goes on there
                pass
            except MemoryError:
                failed(store, run_id, "the memory was used up. Lower depth, width, batch_size, arms or seeds.")
            except Exception as error:
                with suppress(KeyError):  # it was deleted meanwhile
                    store.run(run_id)
                    traceback.print_exc()
                text = " ".join(str(error).split())[:200]
                failed(store, run_id, f"{type(error).__name__}: {text}")
            print(json.dumps({"ended": run_id, "left": left}), file=out)
    os._exit(0)  # the timer must not keep the process


store_at = lru_cache(4)(RunStore)


def failed(store: RunStore, run_id: str, reason: str) -> None:
    with suppress(KeyError):  # it was deleted meanwhile
        store.change(run_id, status="failed", reason=reason)
