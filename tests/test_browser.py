"""Runs in a real browser: trained, paused, stepped, stopped, left and found again."""

import re

import pytest
from lab_browser import LONG, SHORT, SLOW, button, drawn, opened, redrawn, status, step, stopped, trained, until
from playwright.sync_api import expect

from pages.parts.controls import END

pytestmark = pytest.mark.browser


def test_there_is_something_to_see_before_the_first_click(page, server):
    opened(page, server)
    status(page, "done")
    drawn(page)
    assert page.locator(".board-card").count() == 3
    until(page, "document.querySelectorAll('.live-plot .scatterlayer .trace path.js-line').length > 2")
    page.set_viewport_size({"width": 1366, "height": 768})  # of a small laptop: the curves begin above the fold
    until(page, "document.querySelector('.live-plot .cartesianlayer').getBoundingClientRect().top < 700")
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


def test_train_runs_the_page_once_not_again_when_the_run_leaves_the_queue(page, server):
    sent = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append(frame)))
    opened(page, f"{server}/?{LONG}")
    before = len(sent)
    button(page, "Train").click()
    status(page, "running")
    redrawn(page, 8)  # at least a second, in which the board asks a few times too
    assert len(sent) == before + 1
    stopped(page)
    expect(button(page, "Stop")).to_be_disabled()  # of its end the page hears


def test_train_is_heard_also_while_the_page_hears_that_a_run_has_ended(page, server):
    run = trained(page, server)
    for _ in range(4):
        stopped(page)
        button(page, "Train").click()  # within milliseconds of the rerun that "stopped" asks for
        until(page, f"document.querySelector('.live-plot').dataset.address?.includes('{run}') === false")
        status(page, "running")
        run = page.evaluate("document.querySelector('.live-plot').dataset.address.split('/')[2]")
    until(page, f"location.search.includes('{run}')")
    stopped(page)


def test_what_the_page_was_told_in_vain_it_is_told_again(page, browser, server):
    deaf, lost = [], []

    def passed_on(socket):
        there = socket.connect_to_server()
        socket.on_message(lambda message: lost.append(message) if deaf else there.send(message))

    page.route_web_socket(re.compile("/_stcore/stream"), passed_on)
    run = trained(page, server)
    deaf.append(True)
    other = opened(browser.new_page(), f"{server}/?run={run}")
    button(other, "Pause").click()
    status(page, "paused")
    page.wait_for_timeout(6000)  # the looks that come after are news, which it tells too
    assert lost
    deaf.clear()
    expect(button(page, "Resume")).to_be_visible()
    stopped(other)


@pytest.mark.parametrize(
    ("lost", "said"), [({}, "The server does not answer."), ({"status": 503, "body": "Locked."}, "Locked.")]
)
def test_the_board_of_a_run_at_rest_says_its_state_again_once_the_server_answers(page, server, lost, said):
    opened(page, server)
    state = page.locator(".board-state")
    expect(state).to_have_text("Done after 500 steps")
    page.route("**/api/runs/*", lambda asked: asked.fulfill(**lost) if lost else asked.abort())
    expect(state).to_contain_text(said)
    page.unroute("**/api/runs/*")
    expect(state).to_have_text("Done after 500 steps")


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


def test_a_sidebar_that_streamlit_leaves_empty_is_not_seen(page, server):
    opened(page, server)
    sidebar = page.locator("[data-testid=stSidebar]")
    expect(sidebar).to_be_visible()
    # as where a page is left while a view of it is drawn, now and then
    sidebar.evaluate("part => part.querySelectorAll('[data-testid=stElementContainer]').forEach(e => e.remove())")
    expect(sidebar).to_be_hidden()


def test_a_page_whose_run_is_deleted_in_another_tab_goes_on_to_the_example_by_itself(page, browser, server):
    run = trained(page, server, SHORT, "done")
    tabs = {where: browser.new_page() for where in ("inference", "why")}
    for where, tab in tabs.items():
        tab.goto(f"{server}/{where}?run={run}")
    for tab in (page, *tabs.values()):
        until(tab, f"document.querySelector('.live-plot')?.dataset.address?.includes('{run}')")
    other = browser.new_page()
    other.goto(f"{server}/runs")
    row = other.locator(f".st-key-row-{run}")
    row.get_by_role("button", name="Delete").click()
    other.get_by_role("button", name="Delete for good").click()
    row.wait_for(state="detached", timeout=SLOW)
    other.close()
    for where, tab in {"lab": page, **tabs}.items():
        told = tab.get_by_test_id("stAlert").filter(has_text="BN' was deleted. Choose another run.")
        expect(told, where).to_have_count(1)
        expect(tab.locator(".st-key-head").get_by_role("button", name="Rename"), where).to_be_disabled()
        until(tab, f"!document.querySelector('.live-plot').dataset.address.includes('{run}')")
        until(tab, f"!location.search.includes('run={run}')")
    for tab in tabs.values():
        tab.close()


def test_the_list_of_runs_follows_those_that_train_and_the_keyboard_renames_stops_and_deletes(page, browser, server):
    run = trained(page, server)
    other = browser.new_page()
    other.goto(f"{server}/runs")
    row = other.locator(f".st-key-row-{run}")
    row.wait_for(timeout=SLOW)
    at = f"+document.querySelector('.st-key-row-{run}').innerText.match(/step ([\\d,]+) of/)[1].replaceAll(',', '')"
    until(other, f"{at} > {other.evaluate(at)}")
    expect(row.get_by_role("button", name="Delete")).to_be_disabled()
    focused = other.locator(":focus")
    row.get_by_role("button", name="Rename").press("Enter")
    name = other.get_by_role("textbox", name="Name")
    name.wait_for(timeout=SLOW)
    other.keyboard.press("Tab")
    expect(name).to_be_focused()
    name.fill("half a na")
    until(other, f"{at} > {other.evaluate(at)}")
    expect(name).to_have_value("half a na")
    name.press_sequentially("me")
    name.press("Enter")
    expect(row).to_contain_text("half a name")
    expect(name).to_have_count(0)
    expect(focused).to_have_text(re.compile("Rename"))
    expect(row).to_have_role("group")
    expect(row).to_have_accessible_name(row.get_by_role("heading", level=2).inner_text())
    button(page, "Train").click()  # another, whose row comes above this one
    until(other, f"!document.querySelector('[class*=st-key-row-]').matches('.st-key-row-{run}')")
    row.wait_for(timeout=SLOW)
    row.get_by_role("button", name="Stop").press("Enter")
    expect(row).to_contain_text("Stopped, step")
    expect(row.get_by_role("button", name="Stop")).to_have_count(0)
    expect(focused).to_have_text(re.compile("Open"))
    row.get_by_role("button", name="Delete").press("Enter")
    other.get_by_role("button", name="Delete for good").wait_for(timeout=SLOW)
    other.keyboard.press("Tab")
    expect(focused).to_have_text(re.compile("Delete for good"))
    expect(other.get_by_role("dialog")).to_have_accessible_name(re.compile(r"^Delete: .* · half a name$"))
    other.keyboard.press("Enter")
    row.wait_for(state="detached", timeout=SLOW)
    expect(other.locator("[class*=st-key-row-] :focus")).to_have_count(1)  # in the row that took its place
    other.close()
    status(page, "running")
    stopped(page)
