"""What is computed once for all who ask: how much is kept, and that neither a failure nor who leaves spoils it."""

import asyncio
import threading

import pytest

from bnlab.api import AsyncCache


def asked(cache, keys):
    """Of which keys, asked one after another, something was computed."""
    computed = []

    async def ask():
        for key in keys:
            assert await cache.get(key, lambda key=key: computed.append(key) or f"of {key}") == f"of {key}"

    asyncio.run(ask())
    return "".join(computed)


def test_so_many_results_are_kept_and_the_oldest_are_forgotten():
    cache = AsyncCache(kept=2, threads=1)
    assert asked(cache, "ababcbcab") == "abcab"
    assert len(cache.tasks) == 2


def test_a_failure_is_told_and_not_kept():
    async def ask():
        cache, outcomes = AsyncCache(kept=2, threads=1), iter([ZeroDivisionError("once"), "at last"])

        def compute():
            outcome = next(outcomes)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        with pytest.raises(ZeroDivisionError):
            await cache.get("a", compute)
        assert await cache.get("a", compute) == "at last"

    asyncio.run(ask())


def test_a_failure_that_nobody_waited_for_is_not_kept():
    """Whoever came next was told of it, and what he asked for was not computed."""

    async def ask():
        cache, begun, free = AsyncCache(kept=2, threads=1), threading.Event(), threading.Event()

        def compute():
            begun.set()
            assert free.wait(30)
            raise ZeroDivisionError("once")

        watcher = asyncio.ensure_future(cache.get("a", compute))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        (task,) = cache.tasks.values()
        watcher.cancel()
        await asyncio.wait([watcher])
        free.set()
        await asyncio.wait([task])
        assert await cache.get("a", lambda: "at last") == "at last"

    asyncio.run(ask())


def test_one_watcher_who_leaves_does_not_take_the_result_from_the_others():
    async def ask():
        cache, begun, free, computed = AsyncCache(kept=2, threads=1), threading.Event(), threading.Event(), []

        def compute():
            begun.set()
            assert free.wait(30)
            computed.append("a")
            return "figure"

        leaving, staying = (asyncio.create_task(cache.get("a", compute)) for _ in range(2))
        while not begun.is_set():
            await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])
        free.set()
        assert await staying == await cache.get("a", compute) == "figure"
        assert leaving.cancelled() and computed == ["a"]

    asyncio.run(ask())


def test_as_many_are_computed_at_a_time_as_there_are_threads():
    begun, free = [], threading.Event()

    async def ask():
        cache = AsyncCache(kept=20, threads=2)
        asked = asyncio.gather(*(cache.get(key, lambda: begun.append(1) or free.wait(30)) for key in range(20)))
        while len(begun) < 2:
            await asyncio.sleep(0)
        for _ in range(1000):  # in which the others would begin
            await asyncio.sleep(0)
        together = len(begun)
        free.set()
        await asked
        return together

    assert asyncio.run(ask()) == 2
    assert len(begun) == 20


def test_a_new_server_in_the_process_does_not_wait_for_what_an_old_one_had_begun():
    cache, begun, free = AsyncCache(kept=2, threads=1), threading.Event(), threading.Event()

    async def leave():
        left = asyncio.ensure_future(cache.get("a", lambda: begun.set() or free.wait(30)))
        while not begun.is_set():
            await asyncio.sleep(0)
        return left

    asyncio.run(leave())
    free.set()
    assert asked(cache, "a") == "a"
