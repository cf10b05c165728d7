"""How long a visitor waits for the page: at the server, and in a browser beside an empty page of Streamlit.

    python -m benchmarks.visit             about a minute and a half; needs Chromium or Chrome

The server's share is the time until the whole page has been sent, from its start for the first visitor and from the
first byte asked for later ones. What a browser adds is mostly its own work, so an empty page is loaded in turn.
"""

import asyncio
import statistics
import tempfile
import time
from http.client import HTTPConnection
from pathlib import Path

import websockets
from playwright.sync_api import sync_playwright
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from .page import busy, ready, visit
from .served import CHROMIUM, server, started_server

EMPTY = 'import streamlit as st\nst.button("Train", key="train")\n'
BYTES = "performance.getEntriesByType('resource').reduce((sum, entry) => sum + entry.transferSize, 0)"


async def sent(address: str) -> None:
    """Ask for the page as the browser's script does, and wait until all of it has come."""
    ask = BackMsg()
    ask.rerun_script.query_string = ""
    stream = address.replace("http", "ws") + "/_stcore/stream"
    async with websockets.connect(stream, subprotocols=["streamlit"], origin=address, max_size=None) as socket:
        await socket.send(ask.SerializeToString())
        while ForwardMsg.FromString(await socket.recv()).WhichOneof("type") != "script_finished":
            pass


def answered(address: str) -> float:
    """Seconds until an answer has come over a connection that is open already, as of all files but a page's first."""
    connection, took = HTTPConnection(address.removeprefix("http://")), []
    for _ in range(20):
        begun = time.perf_counter()
        connection.request("GET", "/_stcore/health")
        connection.getresponse().read()
        took.append(time.perf_counter() - begun)
    connection.close()
    return statistics.median(took[1:])


def at_the_server() -> None:
    """The first page after the start, and later ones; nothing is drawn."""
    first, later, answers = [], [], []
    for _ in range(3):
        begun = time.perf_counter()
        with started_server() as (address, *_):
            while True:
                try:
                    asyncio.run(sent(address))
                    break
                except OSError:
                    time.sleep(0.02)
            first.append(time.perf_counter() - begun)
            for _ in range(3):
                begun = time.perf_counter()
                asyncio.run(sent(address))
                later.append(time.perf_counter() - begun)
            answers.append(answered(address))
    first, later = statistics.median(first), statistics.median(later)
    print(f"the server has sent the first page {first:.2f} s after its start, a later visitor's after {later:.2f} s")
    print(f"an answer over an open connection has come after {1e3 * statistics.median(answers):.1f} ms")


def in_a_browser() -> None:
    """New visitors beside those of an empty page of Streamlit, in turn: seconds, bytes, server time."""
    with tempfile.TemporaryDirectory() as directory, sync_playwright() as playwright:
        empty = Path(directory) / "empty.py"
        empty.write_text(EMPTY)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        with server(empty) as nothing, server() as lab:
            seen: dict[str, list[tuple[float, ...]]] = {"an empty page": [], "the lab": []}
            for _ in range(6):
                for (name, each), (address, process, _) in zip(seen.items(), (nothing, lab), strict=True):
                    before, begun = busy(process.pid), time.perf_counter()
                    page, controls = visit(browser, address)
                    if name == "the lab":
                        ready(page)
                    curve = time.perf_counter() - begun
                    time.sleep(0.3)  # what comes after the curve
                    each.append((controls, curve, page.evaluate(BYTES) / 1e6, busy(process.pid) - before))
                    page.close()
            for name, each in seen.items():
                controls, curve, received, took = (statistics.median(column) for column in zip(*each[1:], strict=True))
                chart = f", chart after {curve:.2f} s" if name == "the lab" else ""
                print(
                    f"visitor of {name}: controls after {controls:.2f} s{chart}, {received:.2f} MB, server {took:.2f} s"
                )
            controls, curve, *_ = seen["the lab"][0]
            print(f"the first one of the lab: controls after {controls:.2f} s, chart after {curve:.2f} s")
        browser.close()


if __name__ == "__main__":
    at_the_server()
    in_a_browser()
