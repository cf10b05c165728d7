"""The lab in a real browser: a server of its own, a tab of Chromium, and how it is driven."""

import os

import pytest
from playwright.sync_api import Error, Page, expect, sync_playwright

from benchmarks import served

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SLOW = 180_000  # milliseconds a busy machine may take for one thing: whoever trains gives way to all others
LONG = "depth=3&width=8&batch_size=16&steps=1000000&score_every=100000&arm=no+norm&arm=BN;norm=batch"
SHORT = "depth=3&width=8&batch_size=16&steps=300&arm=no+norm&arm=BN;norm=batch"
RESTED = "[data-testid=stApp][data-test-script-state=notRunning]"

expect.set_options(timeout=SLOW)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The address of a server of its own, with a store that was empty at first, and two workers."""
    path = tmp_path_factory.mktemp("server") / "log.txt"
    try:
        with open(path, "wb") as log, served.server(log=log, BNLAB_WORKERS="2") as (address, _, _):
            yield address
    finally:
        print(path.read_text())  # shown where it did not start
    assert "Traceback" not in path.read_text()


@pytest.fixture(scope="module")
def browser():
    """Tabs that share what they have loaded; for one file alone, as beside Playwright no other event loop can run."""
    with sync_playwright() as playwright:
        try:
            chromium = playwright.chromium.launch(executable_path=served.CHROMIUM, args=ARGUMENTS)
        except Error as error:
            if "CI" in os.environ:
                raise
            pytest.skip(f"no Chromium: {error.message.splitlines()[0]}")
        yield chromium.new_context(viewport={"width": 1400, "height": 900})
        chromium.close()


@pytest.fixture
def page(browser):
    """A tab; in it and those beside it nothing may go wrong unseen and nothing may come from elsewhere."""
    wrong, here = [], ("http://127.0.0.1:", "data:", "blob:")
    hear = {
        "weberror": lambda told: wrong.append(str(told.error)),
        "request": lambda request: None if request.url.startswith(here) else wrong.append(request.url),
    }
    for event, heard in hear.items():
        browser.on(event, heard)
    yield browser.new_page()
    for page in browser.pages:
        page.close()
    for event, heard in hear.items():
        browser.remove_listener(event, heard)
    assert not wrong


def opened(page: Page, address: str) -> Page:
    page.goto(address)
    button(page, "Train").wait_for(timeout=SLOW)
    page.wait_for_selector(RESTED, timeout=SLOW)
    return page


def button(page: Page, name: str):
    key = f"st-key-{name.lower()}"  # that of Train and of Reset names the run that is shown, too
    return page.locator(f":is(.{key}, [class*={key}-]) button:visible")


def status(page: Page, *wanted: str) -> None:
    """Wait until the board says one of these states, of the run of the address and not of the one before it."""
    ours = "new URLSearchParams(location.search).get('run') ?? board.dataset.run"
    states = ", ".join(f".board[data-status={name}]" for name in wanted)
    until(page, f"[...document.querySelectorAll('{states}')].some((board) => board.dataset.run === ({ours}))")


def step(page: Page) -> int:
    return int(page.get_attribute(".board", "data-step"))


def until(page: Page, condition: str) -> None:
    page.wait_for_function(condition, timeout=SLOW)


def drawn(page: Page) -> int:
    """How many figures the chart has drawn; waits for the first with a curve."""
    plot = "document.querySelector('.live-plot')"
    count = f"{plot}?._fullData?.length > 0 && Number({plot}.dataset.updates)"  # at once: a view may be on its way out
    return page.wait_for_function(count, timeout=SLOW).json_value()


def redrawn(page: Page, times: int = 2) -> None:
    """Wait until the chart has drawn newer figures."""
    until(page, f"+document.querySelector('.live-plot').dataset.updates >= {drawn(page) + times}")


def trained(page: Page, server: str, question: str = LONG, state: str = "running") -> str:
    """Press Train with this question; the id of the run, once it is in this state and has drawn a curve."""
    opened(page, f"{server}/?{question}")
    button(page, "Train").click()
    until(page, "location.search.includes('run=')")  # until then the example is shown, which is done
    status(page, state)
    run = page.evaluate("new URLSearchParams(location.search).get('run')")
    until(page, f"document.querySelector('.live-plot')?.dataset.address?.includes('{run}')")
    drawn(page)
    return run


def stopped(page: Page) -> None:
    button(page, "Stop").click()
    status(page, "stopped")
