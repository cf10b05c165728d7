"""A probe looks at a stored run: what it sees is kept with the run, or the reason why it sees nothing."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache

import numpy as np

from .database import Error, Unkept, told
from .lineage import seen
from .probes import PROBES, Copies, checked
from .problems import in_a_line
from .run import Run
from .store import RunStore

Due = list[tuple[str, int, list[np.ndarray]]]  # looks to be taken: the probe, the step, the weights before its update


def options_of(run: Run, probe: str, given: Mapping[str, object]) -> dict[str, object]:
    """All options of a probe that looks at a run: as given; else alpha as all its arms with batch norm have it, where
    they share one, and a layer that some arm has. Raises ValueError with a sentence."""
    every, found = run.experiment.arm_settings, checked(probe, given)
    deepest, alphas = max(s.depth for s in every), {s.alpha for s in every if s.norm == "batch"}
    if "layer" in given and found["layer"] > deepest:
        raise ValueError(f"layer is {found['layer']}; allowed is 1 to {deepest}, the depth of run {run.id}.")
    if "layer" in found:
        found["layer"] = min(found["layer"], deepest)
    if "alpha" in found and "alpha" not in given and len(alphas) == 1:
        (found["alpha"],) = alphas
    return found


def look_at(store: RunStore, run_id: str, due: Due, gone: Callable[[], bool] = lambda: False) -> None:
    """Take the looks that are due, until `gone()`."""
    with suppress(KeyError, Unkept):  # it was deleted meanwhile, or nothing can be kept: they can be taken later
        for name, step, weights in due:
            look(store, run_id, name, {}, step, weights, gone)


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
    reason as a sentence under the name "wrong". Nothing is kept of a look that `gone()` ends. Raises KeyError where the
    run was deleted meanwhile, and Unkept where the store cannot be read or written: it can be looked at again."""
    for _ in () if gone() else pieces(store, run_id, probe, options, step, weights):
        if gone():
            return


def pieces(
    store: RunStore, run_id: str, probe: str, options: Mapping, step: int, weights: list[np.ndarray]
) -> Iterator[None]:
    """The same piece by piece."""
    try:
        yield from tried(store, run_id, probe, checked(probe, options), step, weights)
    except Error as error:
        raise Unkept(told(error)) from error


def tried(
    store: RunStore, run_id: str, probe: str, options: Mapping, step: int, weights: list[np.ndarray]
) -> Iterator[None]:
    """The same, with the store's own errors."""
    for last in (False, True):
        try:
            if not weights:
                raise ValueError(f"the weights of step {step:,} were thinned. Raise budget_mb to keep more.")
            back = seen(store.trace(run_id)) if PROBES[probe].back else ()
            found = yield from copies(store, run_id).looking(probe, options, step, weights, back)
        except Error:  # nothing to do with the networks
            raise
        except Exception as error:  # looking changes nothing: a training goes on
            if used_up(error) and not last:
                copies.cache_clear()
                continue  # once more, when what the error holds is let go, too
            store.keep_wrong(run_id, probe, options, step, in_a_line(error))
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
