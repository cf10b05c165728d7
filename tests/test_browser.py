"""The lab in a real browser: a real server, real workers, real Chromium."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Error, Page, expect, sync_playwright

from pages.parts.controls import END
from pages.parts.words import INVISIBLE

ROOT = Path(__file__).parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SLOW = 60_000  # milliseconds a slow machine may take for one thing
LONG = "depth=3&width=8&batch_size=16&steps=1000000&score_every=100000&arm=no+norm&arm=BN;norm=batch"
SHORT = "depth=3&width=8&batch_size=16&steps=300&arm=no+norm&arm=BN;norm=batch"
RESTED = "[data-testid=stApp][data-test-script-state=notRunning]"

pytestmark = pytest.mark.browser
expect.set_options(timeout=SLOW)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a server of its own, with an empty store and one worker."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    store = tmp_path_factory.mktemp("store")
    with open(store / "log.txt", "wb") as log:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "streamlit",
                "run",
                "app.py",
                "--server.headless",
                "true",
                "--server.port",
                str(port),
            ],
            cwd=ROOT,
            env=os.environ | {"BNLAB_STORE": str(store), "BNLAB_WORKERS": "2"},
            stdout=log,
            stderr=log,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            for _ in range(240):
                try:
                    with urllib.request.urlopen(f"{address}/_stcore/health", timeout=5):
                        break
                except OSError:
                    assert process.poll() is None, (store / "log.txt").read_text()
                    time.sleep(0.25)
            yield address
        finally:
            process.terminate()
            process.wait(30)
    assert "Traceback" not in (store / "log.txt").read_text()


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        try:
            chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        except Error as error:
            if "CI" in os.environ:
                raise
            pytest.skip(f"no Chromium: {error.message.splitlines()[0]}")
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser):
    """A tab in which nothing may go wrong unseen and nothing may come from elsewhere."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request", lambda r: None if r.url.startswith(("http://127.0.0.1:", "data:", "blob:")) else wrong.append(r.url)
    )
    yield page
    page.close()
    assert not wrong


def opened(page: Page, address: str) -> Page:
    page.goto(address)
    button(page, "Train").wait_for(timeout=SLOW)
    page.wait_for_selector(RESTED, timeout=SLOW)
    return page


def button(page: Page, name: str):
    return page.locator(f".st-key-{name.lower()} button:visible")


def status(page: Page, *wanted: str) -> None:
    """Wait until the board says one of these states."""
    expect(page.locator(", ".join(f".board[data-status={name}]" for name in wanted))).to_have_count(1)


def step(page: Page) -> int:
    return int(page.get_attribute(".board", "data-step"))


def until(page: Page, condition: str) -> None:
    page.wait_for_function(condition, timeout=SLOW)


def drawn(page: Page) -> int:
    """How many figures the chart has drawn; waits for the first with a curve."""
    until(page, "document.querySelector('.live-plot')?._fullData?.length > 0")
    return int(page.locator(".live-plot").first.get_attribute("data-updates"))


def redrawn(page: Page, times: int = 2) -> None:
    """Wait until the chart has drawn newer figures."""
    until(page, f"+document.querySelector('.live-plot').dataset.updates >= {drawn(page) + times}")


def trained(page: Page, server: str, question: str = LONG) -> str:
    """Press Train at this address; the id of the run, once it has drawn a curve."""
    opened(page, f"{server}/?{question}")
    button(page, "Train").click()
    until(page, "location.search.includes('run=')")
    status(page, "running")
    drawn(page)
    return page.evaluate("new URLSearchParams(location.search).get('run')")


def stopped(page: Page) -> None:
    button(page, "Stop").click()
    status(page, "stopped")


def test_there_is_something_to_see_before_the_first_click(page, server):
    opened(page, server)
    status(page, "done")
    drawn(page)
    assert page.locator(".board-card").count() == 3
    until(page, "document.querySelectorAll('.live-plot .scatterlayer .trace path.js-line').length > 2")
    page.evaluate("Plotly.relayout(document.querySelector('.live-plot'), {'xaxis.range': [0, 20000]})")
    ticks = page.locator(".live-plot").first.locator(".xtick text")
    expect(ticks).to_have_text(["0", "5,000", "10,000", "15,000", "20,000"])
    chance = page.locator(".live-plot .shapelayer text", has_text="chance").first
    expect(chance).to_have_css("paint-order", "stroke")  # its rim, in the page's color, keeps it readable over marks
    expect(chance).to_have_css("stroke", "rgb(255, 255, 255)")


def test_train_pause_step_resume_stop(page, server):
    trained(page, server)
    until(page, f"+document.querySelector('.board').dataset.step > {step(page)}")
    redrawn(page)
    button(page, "Pause").click()
    status(page, "paused")
    button(page, "Resume").wait_for(timeout=SLOW)
    before = step(page)
    button(page, "Step").click()
    until(page, f"+document.querySelector('.board').dataset.step === {before + 1}")
    status(page, "paused")
    button(page, "Step").click()
    until(page, f"+document.querySelector('.board').dataset.step === {before + 2}")
    button(page, "Resume").click()
    status(page, "running")
    until(page, f"+document.querySelector('.board').dataset.step > {before + 2}")
    stopped(page)
    expect(button(page, "Stop")).to_be_disabled()


def test_what_was_typed_just_before_train_is_trained(page, server):
    opened(page, f"{server}/?{LONG}")
    box = page.locator("[class*=st-key-learning_rate-] input").first
    box.click()
    box.fill("0.03")
    box.press("Enter")
    button(page, "Train").click()
    until(page, "location.search.includes('run=') && location.search.includes('learning_rate=0.03')")
    run = page.evaluate("new URLSearchParams(location.search).get('run')")
    stopped(page)
    opened(page, f"{server}/?run={run}")
    assert page.locator("[class*=st-key-learning_rate-] input").first.input_value().rstrip(END) == "0.03"


OVER = [("learning_rate", "0.15"), ("alpha", "0.97"), ("steps", "5000"), ("seeds", "0,1")]


@pytest.mark.parametrize(("name", "text"), OVER)
def test_what_is_written_over_a_value_is_taken_as_a_whole(page, server, name, text):
    """Also where it begins as the old one does: 0.15 over 0.1."""
    for write in (page.keyboard.insert_text, page.keyboard.type):  # pasted, typed
        opened(page, f"{server}/?learning_rate=0.1&steps=500")
        page.locator(f"[class*=st-key-{name}-] input").first.click()
        page.keyboard.press("Control+A")
        write(text)
        page.keyboard.press("Enter")
        until(page, f"new URLSearchParams(location.search).get('{name}') === '{text}'")


def test_train_is_heard_also_while_the_page_hears_that_a_run_has_ended(page, server):
    run = trained(page, server)
    for _ in range(4):
        stopped(page)
        button(page, "Train").click()  # within milliseconds of the rerun that "stopped" asks for
        until(page, f"document.querySelector('.live-plot').dataset.address?.includes('{run}') === false")
        status(page, "running")
        run = page.evaluate("document.querySelector('.live-plot').dataset.address.split('/')[3]")
    until(page, f"location.search.includes('{run}')")
    stopped(page)


def test_a_run_goes_on_when_its_tab_is_closed_and_its_address_finds_it(page, browser, server):
    run = trained(page, server)
    page.reload()
    status(page, "running")
    seen = step(page)
    page.close()
    later = browser.new_page()
    opened(later, f"{server}/?run={run}")
    status(later, "running")
    until(later, f"+document.querySelector('.board').dataset.step > {seen}")
    assert later.locator("[class*=st-key-width-] input").first.input_value().rstrip(END) == "8", (
        "the controls show its question"
    )
    stopped(later)
    later.close()


def test_switching_pages_keeps_the_run_and_the_question(page, server):
    run = trained(page, server)
    page.get_by_role("link", name="Runs").click()
    page.locator(f".st-key-open-{run}").wait_for(timeout=SLOW)
    page.get_by_role("link", name="Lab").click()
    status(page, "running")
    redrawn(page)
    assert page.locator("[class*=st-key-width-] input").first.input_value().rstrip(END) == "8"
    until(page, f"location.search.includes('run={run}') && location.search.includes('width=8')")
    stopped(page)


def test_zoom_hover_and_hidden_curves_survive_updates_and_reruns(page, server):
    trained(page, server)
    until(page, "document.querySelector('.live-plot').layout.xaxis.range[1] > 100")
    page.locator(".live-plot .legendtoggle").first.click()
    until(page, "document.querySelector('.live-plot')._fullData.some(t => t.visible === 'legendonly')")
    box = page.locator(".live-plot .nsewdrag").first.bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 300, box["y"] + 200, steps=4)
    page.mouse.up()
    zoom = "document.querySelector('.live-plot').layout.xaxis.range.map(Math.fround)"
    until(page, "document.querySelector('.live-plot').layout.xaxis.autorange !== true")
    kept = page.evaluate(zoom)
    redrawn(page)
    assert page.evaluate(zoom) == kept
    page.locator("[class*=st-key-depth-] input").first.focus()
    page.keyboard.press("ArrowRight")  # a rerun of the page
    until(page, "location.search.includes('depth=4')")
    redrawn(page)
    assert page.evaluate(zoom) == kept
    assert page.evaluate("document.querySelector('.live-plot')._fullData.some(t => t.visible === 'legendonly')")
    box = page.locator(".live-plot .nsewdrag").first.bounding_box()  # a sentence above may have moved it
    page.mouse.move(box["x"] + 200, box["y"] + 100)
    page.mouse.move(box["x"] + 205, box["y"] + 102)
    hover = page.locator(".live-plot .hoverlayer > *")
    expect(hover.first).to_be_attached()
    redrawn(page)
    expect(hover.first).to_be_attached()
    stopped(page)


def test_a_zoom_is_there_again_when_its_view_comes_back_but_not_in_another_run(page, server):
    def view(name: str, first: str) -> None:
        page.get_by_role("radio", name=name, exact=True).click()
        until(page, f"document.querySelector('.live-plot')?.dataset.address?.endsWith('/{first}')")

    def is_zoomed(yes: bool) -> None:
        until(
            page, f"(document.querySelector('.live-plot')?.layout?.xaxis?.autorange === false) === {str(yes).lower()}"
        )

    zoom = "document.querySelector('.live-plot').layout.xaxis.range.map(Math.fround)"
    opened(page, f"{server}/?{SHORT}")
    button(page, "Train").click()
    until(page, "location.search.includes('run=')")
    status(page, "done")
    run = page.evaluate("new URLSearchParams(location.search).get('run')")
    until(page, f"document.querySelector('.live-plot')?.dataset.address?.includes('{run}')")
    drawn(page)
    page.wait_for_selector(RESTED, timeout=SLOW)
    box = page.locator(".live-plot .nsewdrag").first.bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 300, box["y"] + 200, steps=4)
    page.mouse.up()
    is_zoomed(True)
    kept = page.evaluate(zoom)
    view("Gradient flow", "gradient_flow")
    view("Loss and accuracy", "loss")
    is_zoomed(True)
    assert page.evaluate(zoom) == kept
    button(page, "Train").click()
    until(page, f"!(document.querySelector('.live-plot')?.dataset.address ?? '{run}').includes('{run}')")
    status(page, "done")
    is_zoomed(False)
    page.mouse.move(0, 0)
    page.locator(".st-key-head input").first.click()
    page.get_by_role("option").nth(1).click()  # the first run again
    until(page, f"document.querySelector('.live-plot')?.dataset.address?.includes('{run}')")
    is_zoomed(True)
    assert page.evaluate(zoom) == kept
    box = page.locator(".live-plot .nsewdrag").first.bounding_box()
    page.mouse.dblclick(box["x"] + 100, box["y"] + 100)
    is_zoomed(False)
    view("Gradient flow", "gradient_flow")
    view("Loss and accuracy", "loss")
    is_zoomed(False)


def test_panels_on_a_telephone_stand_in_their_order(page, server):
    arms = "&".join(f"arm=A{i}" + (";norm=batch" if i == 1 else "") for i in range(1, 6))
    page.set_viewport_size({"width": 480, "height": 900})
    opened(page, f"{server}/?depth=2&width=4&batch_size=16&steps=20&{arms}")
    button(page, "Train").click()
    status(page, "done")
    until(page, "location.search.includes('run=')")
    tops = """at => { const plot = document.querySelectorAll('.live-plot')[at];
      plot?.scrollIntoView();
      const titles = [...(plot?.querySelectorAll('.annotation') ?? [])].filter(t => /^A\\d$/.test(t.textContent));
      const found = titles.map(t => [t.getBoundingClientRect().y, t.textContent]).sort((a, b) => a[0] - b[0]);
      return found.length === 5 && found.map(t => t[1]).join(); }"""
    for name, at in (("Gradient flow", 2), ("Distributions", 0)):
        page.get_by_role("radio", name=name, exact=True).click()
        page.wait_for_selector(RESTED, timeout=SLOW)
        assert page.wait_for_function(tops, arg=at, timeout=SLOW).json_value() == "A1,A2,A3,A4,A5"


def test_an_axis_whose_range_was_given_chooses_its_own_again(page, server):
    opened(page, f"{server}/?{SHORT}")
    for scale in ("log", "linear", "log"):  # the accuracy's linear axis is given
        page.get_by_role("radio", name=scale, exact=True).last.click()
        axis = "[...document.querySelectorAll('.live-plot')][1]?.layout?.yaxis"
        until(page, f"{axis}?.type === '{scale}' && !!({axis}.autorange) === {str(scale == 'log').lower()}")
        page.evaluate("document.querySelectorAll('.live-plot')[1].scrollIntoView()")


def test_bad_input_is_a_sentence(page, server):
    opened(page, server)
    box = page.locator("[class*=st-key-batch_size-] input").first
    box.click()
    box.fill("1")
    box.press("Enter")
    sentence = "batch_size is 1; batch norm needs at least 2 examples to have a variance."
    expect(page.get_by_text(sentence).first).to_be_visible()
    expect(button(page, "Train")).to_be_disabled()
    page.goto(f"{server}/?depth=1000")
    expect(page.get_by_text("depth is 1000; allowed is a whole number from 1 to 100.").first).to_be_visible()


def test_escape_that_closes_a_list_does_not_stop_the_training(page, server):
    trained(page, server)
    expect(button(page, "Stop")).to_be_enabled()  # the page has heard of the run: no rerun is under way
    page.wait_for_selector(RESTED, timeout=SLOW)
    for box in ("[class*=st-key-learning_rate-] input", ".st-key-head input"):
        for _ in range(40):  # a redraw of the page may close it
            page.locator(box).first.focus()
            page.keyboard.press("ArrowDown")
            page.wait_for_timeout(250)
            if page.locator("[role=listbox]").count():
                break
        page.keyboard.press("Escape")
        page.locator("[role=listbox]").first.wait_for(state="hidden", timeout=SLOW)
        page.keyboard.press("Escape")  # the list is closed, its box has the focus
    page.get_by_text("no norm", exact=True).first.click()
    label = page.locator("[class*=st-key-label-] input").first
    label.press_sequentially(" at all")
    label.press("Escape")
    redrawn(page)
    status(page, "running")
    stopped(page)


def test_words_of_a_visitor_are_no_links_pictures_or_icons(page, server):
    labels = [
        "![i](http://127.0.0.1:1/x.png)", "see www.example.com", "a.b@example.com", ":streamlit: :material/home: :+1:",
        "a -> b -- c <= d <->", "https://example.com",
    ]  # fmt: skip
    made = page.locator("[data-testid=stMain], [data-testid=stSidebar]").locator("a[href], img")
    page.goto(f"{server}/?{urlencode({labels[0]: 1, labels[1]: 2})}")
    expect(page.get_by_text("This address cannot be opened")).to_be_visible()
    expect(made).to_have_count(0)
    opened(page, f"{server}/?depth=1&width=4&steps=3&{urlencode([('arm', label) for label in labels])}")
    titles = page.locator("[data-testid=stSidebar] summary").all_inner_texts()
    assert [title.splitlines()[-1].replace(INVISIBLE, "") for title in titles[: len(labels)]] == labels
    button(page, "Train").click()
    status(page, "done")
    until(page, "location.search.includes('run=')")
    page.get_by_text("Rename").first.click()
    renamed = "; ".join(labels[1:5])
    page.locator("[data-testid=stPopoverBody] input").fill(renamed)
    page.keyboard.press("Enter")
    expect(page.locator(".st-key-head input").first).to_have_value(re.compile(f"· {re.escape(renamed)}$"))
    page.get_by_role("radio", name="Distributions", exact=True).click()
    page.wait_for_selector(RESTED, timeout=SLOW)
    expect(made).to_have_count(0)
    page.get_by_role("link", name="Runs").click()
    name = page.locator("[class*=st-key-row-] strong")
    expect(name.first).to_be_visible()
    assert name.first.inner_text().replace(INVISIBLE, "") == renamed
    expect(made).to_have_count(0)


def test_the_keyboard_trains_and_stops(page, server):
    opened(page, f"{server}/?{LONG}")
    page.keyboard.press("Control+Enter")
    status(page, "running")
    page.keyboard.press("Escape")
    status(page, "stopped")


def test_what_an_empty_chart_says_wraps_and_gives_way_to_the_chart(page, server):
    page.set_viewport_size({"width": 480, "height": 900})
    opened(page, f"{server}/?depth=1&width=4&steps=3&arm=one&arm=two;activation=relu")
    button(page, "Train").click()
    status(page, "done")
    until(page, "location.search.includes('run=')")
    page.get_by_role("radio", name="Moving averages", exact=True).click()
    words = page.locator(".live-empty ~ .live-words[role=status]").first
    expect(words).to_have_text(
        "This arm has no batch norm, so it has no moving averages. Choose or train an arm with batch norm."
    )
    lines = words.evaluate("e => e.clientHeight / parseFloat(getComputedStyle(e).lineHeight)")
    box = words.bounding_box()
    assert lines > 1.5 and box["x"] >= 0 and box["x"] + box["width"] <= 480
    assert words.evaluate("e => e.scrollWidth <= e.clientWidth")
    expect(page.locator(".live-plot").first).to_be_hidden()
    page.get_by_role("radio", name="Loss and accuracy", exact=True).click()
    until(page, "document.querySelector('.live-plot')?._fullData?.length > 0")
    expect(page.locator(".live-plot").first).to_be_visible()
    expect(page.locator(".live-words:visible")).to_have_count(0)
