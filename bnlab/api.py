"""The routes that the live components of the pages pull from: a run's cards, its figures, and plotly's own scripts.

All are GET; a run is found only by its unguessable id. A figure is built once per run, version, view and options, in a
thread of its own, however many watch; a watcher who has seen the version gets 204 and no bytes. No thread waits for
what the lab has yet to look at: a class that opens such figures would keep all others from theirs.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import anyio.to_thread
import pandas  # noqa: F401  whole before the first figure: plotly takes it as it lies, half imported by another thread
import plotly
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from . import cards, figures, opened
from .data import DATASETS
from .database import Error, told
from .figures import FIGURES
from .figures.data import data as preview
from .problems import allowed
from .run import Run

PLOTLY = {  # the whole one, and its makers' build of the flat charts alone, a third of it
    "plotly.min.js": Path(plotly.__file__).parent / "package_data" / "plotly.min.js",
    "plotly-cartesian.min.js": Path(__file__).parent / "plotly" / "plotly-cartesian.min.js",
}
LONGEST_QUERY = 400  # characters; the key of a figure is kept
FRESH = 0.1  # seconds a run's summary is believed
LOOKING = 1.5  # seconds a figure waits for looks; they come with a new version anyway
UNFINISHED = "~"  # ends the version of a figure that waits for looks: whoever has seen it asks on


class Body(NamedTuple):
    """What is sent, packed, and whether it is whole: a figure may wait for looks."""

    content: bytes
    whole: bool


class AsyncCache:
    """Results by key, each computed once in a thread however many ask meanwhile; the oldest are forgotten."""

    def __init__(self, kept: int, threads: int):
        self.kept = kept
        self.threads = threads
        self.tasks: OrderedDict[Hashable, asyncio.Task] = OrderedDict()
        self.limits: dict[asyncio.AbstractEventLoop, anyio.CapacityLimiter] = {}

    async def get(self, key: Hashable, compute: Callable[[], object]) -> object:
        loop = asyncio.get_running_loop()
        if loop not in self.limits:  # a new server in the same process (tests): tasks of another loop cannot be awaited
            self.tasks.clear()
            self.limits = {loop: anyio.CapacityLimiter(self.threads)}
        task = self.tasks.get(key)
        if task is None:
            work = anyio.to_thread.run_sync(compute, limiter=self.limits[loop])
            task = self.tasks[key] = loop.create_task(work)
            while len(self.tasks) > self.kept:
                self.tasks.popitem(last=False)
            task.add_done_callback(partial(self.forget_failed, key))  # whoever watches by then
        return await asyncio.shield(task)  # one watcher leaving does not take it from the others

    def forget_failed(self, key: Hashable, task: asyncio.Task) -> None:
        if (task.cancelled() or task.exception()) and self.tasks.get(key) is task:
            self.forget(key)

    def forget(self, key: Hashable) -> None:
        """Compute it anew when it is asked for again."""
        self.tasks.pop(key, None)


RUNS = AsyncCache(kept=64, threads=2)
LOOKS = AsyncCache(kept=64, threads=2)
BODIES = AsyncCache(kept=64, threads=4)


async def current(run_id: str) -> Run:
    """The run's summary, at most FRESH seconds old. Raises KeyError."""
    return await RUNS.get((run_id, int(time.monotonic() / FRESH)), lambda: opened.holder(run_id).run(run_id))


def gzipped(text: str) -> bytes:
    return gzip.compress(text.encode(), compresslevel=1)


def asked_looks(run_id: str, view: str, options: dict[str, str]) -> list[Future[str]]:
    """Ask for what the figure needs to be looked at first: results as those of Looker.look()."""
    store, looker = opened.holder(run_id), opened.jobs().looker
    trace = store.trace(run_id)
    looks = looker.looking_at(run_id)
    busy = {probe for probe, step, of in looks if trace.look(probe, 0, step, **of) is None}  # else it is kept already
    needed = figures.needs(view, trace, options)
    # what a busy one sees comes with a new version, and so does the next question
    return [looker.look(store, run_id, probe, of, step) for probe, step, of in needed if probe not in busy]


def figure_body(run_id: str, view: str, options: dict[str, str]) -> Body:
    trace = opened.holder(run_id).trace(run_id)
    figures.check(view, trace, options)
    try:
        figures.settle(view, trace, options)
        drawn = gzipped(figures.draw(view, trace, options).to_json())
        return Body(drawn, not figures.needs(view, trace, options))
    except Exception as error:
        logging.getLogger(__name__).exception("%s of run %s with %s", view, run_id, options)
        raise ValueError("This chart could not be drawn. Choose other options; the server's log says why.") from error


def cards_body(run_id: str) -> Body:
    trace = opened.holder(run_id).trace(run_id)
    waiting = opened.jobs().position(run_id) if trace.run.status == "queued" else None
    return Body(gzipped(json.dumps(cards.state(trace, waiting))), True)


async def answer(request: Request, view: str, body: Callable[[str], Body], looks: Callable | None = None) -> Response:
    """One version of what `body` makes of a run, 204 where it was seen; a sentence with 404, 400 or 503. What
    `looks` asks for is waited for a moment."""
    run_id, seen = request.path_params["run"], request.query_params.get("seen")
    options = tuple(sorted((k, v) for k, v in request.query_params.items() if k != "seen"))
    if len(request.url.query) > LONGEST_QUERY:
        return PlainTextResponse(f"The query has more than {LONGEST_QUERY} characters. Shorten it.", 400)
    try:
        run = await current(run_id)
    except KeyError as error:
        return PlainTextResponse(error.args[0], 404)
    except Error as error:
        return PlainTextResponse(told(error), 503)
    version = str(run.version)
    if run.status == "queued":  # its place in the queue is no part of the run, but of what is shown
        version += f".{opened.jobs().position(run_id)}"
    headers = {"x-version": version, "x-status": run.status, "cache-control": "no-store"}
    if seen == version:
        return Response(status_code=204, headers=headers)
    key = run_id, version, view, options
    try:
        if looks and key not in BODIES.tasks:
            taken, end = await LOOKS.get(key, partial(looks, run_id)), time.monotonic() + LOOKING
            while time.monotonic() < end and not all(look.done() for look in taken):
                await asyncio.sleep(0.05)
            LOOKS.forget(key)  # what is missing then is asked for again
            if unkept := next(filter(None, (look.result() for look in taken if look.done())), ""):
                return PlainTextResponse(unkept, 503)
        content, whole = await BODIES.get(key, partial(body, run_id))
    except Error as error:  # first: some are ValueErrors, too
        return PlainTextResponse(told(error), 503)
    except (KeyError, ValueError) as error:
        return PlainTextResponse(error.args[0], 400)
    if not whole:  # what it waits for may get lost, and the run's version stay
        BODIES.forget(key)
        headers["x-version"] += UNFINISHED
        if seen == headers["x-version"]:
            return Response(status_code=204, headers=headers)
    return sent(request, content, headers)


async def run_figure(request: Request) -> Response:
    view = request.path_params["view"]
    of = {"view": view, "options": {k: v for k, v in request.query_params.items() if k != "seen"}}
    looks = partial(asked_looks, **of) if view in FIGURES and FIGURES[view].needs else None
    return await answer(request, view, partial(figure_body, **of), looks)


async def run_cards(request: Request) -> Response:
    return await answer(request, "", cards_body)


def data_body(name: str, standardize: bool) -> bytes:
    return gzipped(preview(name, standardize).to_json())


async def data_figure(request: Request) -> Response:
    """The preview of a data set; it never changes."""
    name, asked = request.path_params["name"], dict(request.query_params)
    seen, written = asked.pop("seen", None), asked.pop("standardize", "") or "true"
    headers = {"x-version": "1", "x-status": "done", "cache-control": "no-store"}
    if name not in DATASETS:
        return PlainTextResponse(f"There is no data set {name[:40]!r}; known are {', '.join(DATASETS)}.", 404)
    if asked:
        return PlainTextResponse(f"{min(asked)[:40]} is not an option of this figure; known is standardize.", 400)
    if written not in ("true", "false"):
        return PlainTextResponse(f"standardize is {written[:40]}; allowed is {allowed('standardize')}.", 400)
    standardize = written == "true"
    if seen == "1":
        return Response(status_code=204, headers=headers)
    content = await BODIES.get(("data", name, standardize), partial(data_body, name, standardize))
    return sent(request, content, headers)


def sent(request: Request, content: bytes, headers: dict[str, str], kind: str = "application/json") -> Response:
    """Packed content, unpacked again for the few who cannot read it."""
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["content-encoding"] = "gzip"  # packed once for all; the server's own middleware would do it for each
    else:
        content = gzip.decompress(content)
    return Response(content, headers=headers, media_type=kind)


@cache
def plotly_gzipped(name: str) -> bytes:
    return gzip.compress(PLOTLY[name].read_bytes(), compresslevel=6)


async def plotly_js(request: Request) -> Response:
    name = request.url.path.rpartition("/")[2]
    headers = {"cache-control": "public, max-age=31536000, immutable"}  # its address carries plotly's version
    return sent(request, await BODIES.get(name, partial(plotly_gzipped, name)), headers, "text/javascript")


ROUTES = [
    Route("/api/data/{name}", data_figure, methods=["GET"]),
    *(Route(f"/api/{name}", plotly_js, methods=["GET"]) for name in PLOTLY),
    Route("/api/runs/{run}", run_cards, methods=["GET"]),
    Route("/api/runs/{run}/{view}", run_figure, methods=["GET"]),
]
