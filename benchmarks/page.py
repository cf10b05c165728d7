"""What the page costs: click to curve, updates a second, bytes and server time an update, thirty viewers.

    python -m benchmarks.page              all of it, about three minutes; needs Chromium or Chrome
    python -m benchmarks.page --only bytes one part: click, bytes, viewers or watched

Times depend on the machine; what is compared is a ratio within one run.
"""

import argparse
import asyncio
import gzip
import os
import statistics
import tempfile
import time
from itertools import islice
from pathlib import Path

import httpx
import numpy as np
from playwright.sync_api import sync_playwright

from bnlab import Experiment, Settings, figures, train
from bnlab.record import Part
from bnlab.store import RunStore
from bnlab.train import score_interval

from .served import CHROMIUM, server

CLICKS, VIEWERS, HERTZ, SECONDS = 9, 30, 4, 15


def busy(pid: int) -> float:
    """Processor seconds a process has used."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def ready(page) -> None:
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]", timeout=60_000)
    page.wait_for_selector(".live-plot[data-updates]", state="attached", timeout=60_000)


POINTS = """() => { const p = document.querySelector('.live-plot'); if (!p?.data) return 0;
  return p.data.length > 0 && p.dataset.address !== window.before; }"""


def visit(browser, address: str):
    """A new visitor's tab, and the seconds until the controls can be used."""
    page = browser.new_page(viewport={"width": 1300, "height": 900})
    begun = time.perf_counter()
    page.goto(address)
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]", timeout=60_000)
    page.wait_for_selector("[class*=st-key-train-] button", timeout=60_000)
    return page, time.perf_counter() - begun


def click() -> None:
    """Click to curve, stop, and updates a second."""
    with sync_playwright() as playwright, server() as (address, _, store):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        clicked(browser, address, RunStore(store))
        browser.close()


def clicked(browser, address: str, runs: RunStore) -> None:
    """Click to curve, stop, and updates a second. A click is when the browser has it, not its driver."""
    page, _ = visit(browser, address)
    ready(page)
    time.sleep(5)  # the workers are warm
    page.evaluate("addEventListener('click', () => { window.clicked = Date.now(); }, true)")
    since = lambda: time.time() - page.evaluate("window.clicked") / 1000  # noqa: E731
    waits, stops = [], []
    for _ in range(CLICKS):
        page.evaluate("window.before = document.querySelector('.live-plot').dataset.address")
        page.locator("[class*=st-key-train-] button:visible").click()
        page.wait_for_function(POINTS, polling=20, timeout=60_000)
        waits.append(since())
        count = "() => +document.querySelector('.live-plot').dataset.updates"
        first, begun = page.evaluate(count), time.perf_counter()
        time.sleep(4)
        rate = (page.evaluate(count) - first) / (time.perf_counter() - begun)
        page.locator(".st-key-stop button:visible").click()
        while runs.runs()[0].status == "running":
            time.sleep(0.01)
        stops.append(since())
        ready(page)
    for what, times in (("the first points of a curve", waits), ("stopped", stops)):
        print(f"click to {what}: median {statistics.median(times):.2f} s of {CLICKS}, at most {max(times):.2f}")
    print(f"updates a second: {rate:.1f}")


LENGTHS = (100, 1_000, 100_000)


def long_run(store: RunStore, length: int, records: list) -> str:
    """A recorded run whose rows are repeated up to a length: what is kept and drawn, without training so long.

    Every row is changed a little, so that repetition does not help to pack it.
    """
    run, every = store.create(records[0].experiment), score_interval(records[0].experiment)
    rng = np.random.default_rng(0)
    with store.writer(run.id) as writer:
        for step in range(length):
            record = records[step % len(records)]
            scored = records[0] if step % every == 0 else record._replace(scores=[], population=[], weights=None)
            factor = 1 + 0.01 * rng.standard_normal()
            parts = tuple(Part({table: row * factor for table, row in p.on_device.items()}) for p in record.parts)
            writer.keep(scored._replace(step=step, parts=parts))
    return run.id


def sizes() -> None:
    """Bytes and server time of an update of every figure at steps 100, 1,000 and 100,000, in turn."""
    with tempfile.TemporaryDirectory() as directory:
        store = RunStore(directory)
        records = list(islice(train(Experiment(settings=Settings(depth=20, width=8, steps=max(LENGTHS)))), 400))
        runs = {length: long_run(store, length, records) for length in LENGTHS}
        print(f"{'figure':<20}" + "".join(f"{f'step {n:,}':>30}" for n in LENGTHS) + "  100,000 : 1,000")
        for name in figures.FIGURES:
            took: dict[int, list[float]] = {length: [] for length in LENGTHS}
            size, packed = {}, {}
            for _ in range(9):
                for length, run_id in runs.items():
                    begun = time.process_time()
                    body = figures.draw(name, store.trace(run_id), {}).to_json().encode()
                    small = gzip.compress(body, compresslevel=1)
                    took[length].append(time.process_time() - begun)
                    size[length], packed[length] = len(body) / 1e3, len(small) / 1e3
            ms = {length: statistics.median(times) * 1e3 for length, times in took.items()}
            cells = [f"{size[n]:.0f} kB, packed {packed[n]:.0f}, {ms[n]:.0f} ms" for n in LENGTHS]
            ratios = f"bytes {packed[LENGTHS[2]] / packed[LENGTHS[1]]:.2f}, time {ms[LENGTHS[2]] / ms[LENGTHS[1]]:.2f}"
            print(f"{name:<20}" + "".join(f"{cell:>30}" for cell in cells) + f"  {ratios}")


async def watch(address: str, run_id: str, view: str) -> list[float]:
    """One viewer asking HERTZ times a second; how long each answer took."""
    took, seen = [], ""
    async with httpx.AsyncClient(base_url=address, headers={"accept-encoding": "gzip"}) as client:
        end = time.monotonic() + SECONDS
        while (begun := time.monotonic()) < end:
            answer = await client.get(f"/api/runs/{run_id}/{view}", params={"seen": seen})
            seen = answer.headers.get("x-version", seen)
            took.append(time.monotonic() - begun)
            await asyncio.sleep(max(0, 1 / HERTZ - took[-1]))
    return took


async def watch_all(address: str, run_id: str) -> list[float]:
    each = await asyncio.gather(*(watch(address, run_id, "loss") for _ in range(VIEWERS)))
    return [took for one in each for took in one]


def started(address: str, steps: int) -> str:
    """Start a run through the page, as a visitor does; its id."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"{address}/?steps={steps}")
        ready(page)
        page.locator("[class*=st-key-train-] button:visible").click()
        page.wait_for_url("**run=**", timeout=60_000)
        run_id = page.url.split("run=")[1].split("&")[0]
        browser.close()
    return run_id


def viewers() -> None:
    """Thirty viewers of one growing run."""
    with server() as (address, process, _):
        run_id = started(address, 100_000)
        time.sleep(3)
        before, begun = busy(process.pid), time.monotonic()
        took = asyncio.run(watch_all(address, run_id))
        cores = (busy(process.pid) - before) / (time.monotonic() - begun)
        p50, p95 = statistics.quantiles(took, n=20)[9], statistics.quantiles(took, n=20)[18]
        print(
            f"{VIEWERS} viewers at {HERTZ} Hz: server {cores:.2f} cores, p50 {p50 * 1e3:.0f} ms, p95 {p95 * 1e3:.0f} ms"
        )


def watched() -> None:
    """Steps per second with the page open beside those without, in alternation."""
    with server() as (address, _, store), sync_playwright() as playwright:
        run_id, runs = None, RunStore(store)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"{address}/?steps=100000")
        ready(page)
        page.locator("[class*=st-key-train-] button:visible").click()
        page.wait_for_url("**run=**", timeout=60_000)
        run_id = page.url.split("run=")[1].split("&")[0]
        watching = page.url
        rates: dict[bool, list[float]] = {True: [], False: []}
        for turn in range(8):
            seen = turn % 2 == 0
            page.goto(watching if seen else "about:blank")
            time.sleep(3)
            first, begun = runs.run(run_id).step, time.monotonic()
            time.sleep(6)
            rates[seen].append((runs.run(run_id).step - first) / (time.monotonic() - begun))
        ratio = statistics.median(rates[True]) / statistics.median(rates[False])
        rounded = {seen: [round(rate) for rate in each] for seen, each in rates.items()}
        print(f"steps a second watched : headless = {ratio:.2f}   ({rounded[True]} : {rounded[False]})")
        browser.close()


PARTS = {"click": click, "bytes": sizes, "viewers": viewers, "watched": watched}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS)
    only = parser.parse_args().only
    for name, part in PARTS.items():
        if only in (None, name):
            part()
