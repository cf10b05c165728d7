"""Buttons in a real browser, pressed by an impatient hand, a mouse that rests, and keys."""

import re

import pytest
from lab_browser import LONG, RESTED, SLOW, button, opened, redrawn, status, step, stopped, trained, until
from playwright.sync_api import expect

pytestmark = pytest.mark.browser


def test_an_impatient_hand_begins_one_run_and_a_patient_one_another(page, server):
    rows = page.locator("[class*=st-key-beside-] button:visible")
    opened(page, f"{server}/?{LONG}")
    train = button(page, "Train").bounding_box()
    page.mouse.move(train["x"] + 20, train["y"] + 10)
    for count in (1, 2, 3):  # as a browser counts clicks that follow each other in a place
        page.mouse.down(click_count=count)
        page.mouse.up(click_count=count)
        page.wait_for_timeout(300)
    status(page, "running")
    stopped(page)
    expect(rows).to_have_count(0)
    page.keyboard.down("Control")
    for _ in range(3):
        page.keyboard.press("Enter")
        page.wait_for_timeout(300)
    page.keyboard.up("Control")
    status(page, "running")
    expect(rows).to_have_count(0)
    page.wait_for_selector(RESTED, timeout=SLOW)
    page.keyboard.press("Control+Enter")
    expect(rows).to_have_count(1)
    stopped(page)
    rows.first.click()
    stopped(page)


def test_no_button_moves_under_a_mouse_that_rests(page, server):
    """Step that was pressed twice met Resume, and Reset met Stop."""
    opened(page, f"{server}/?{LONG}")
    places = lambda: [button(page, name).bounding_box()["x"] for name in ("Step", "Stop", "Reset")]  # noqa: E731
    before = places()
    button(page, "Step").click()
    page.locator(".st-key-resume button:visible").wait_for(timeout=SLOW)
    assert places() == before
    button(page, "Resume").click()
    status(page, "running")
    button(page, "Stop").locator("kbd, [class*=shortcut]").first.wait_for(timeout=SLOW)
    assert places() == before
    stopped(page)


def test_escape_that_closes_a_list_or_a_help_does_not_stop_the_training(page, server):
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
    page.get_by_role("button", name="Help for Smoothing").focus()
    page.get_by_role("tooltip").wait_for(timeout=SLOW)
    page.keyboard.press("Escape")
    page.get_by_role("tooltip").wait_for(state="detached", timeout=SLOW)
    redrawn(page)
    status(page, "running")
    stopped(page)


def test_a_button_that_goes_away_hands_the_keyboard_on(page, server):
    focused = page.locator(":focus")
    trained(page, server)
    button(page, "Pause").focus()
    for then, named in [("paused", "Resume"), ("running", "Pause"), ("paused", "Resume")]:
        page.keyboard.press("Space")
        status(page, then)
        expect(focused).to_have_text(re.compile(named))
    seen = step(page)
    button(page, "Step").press("Enter")
    until(page, f"+document.querySelector('.board').dataset.step > {seen}")
    expect(button(page, "Step")).to_be_focused()
    button(page, "Stop").press("Enter")
    expect(button(page, "Stop")).to_be_disabled()
    expect(button(page, "Reset")).to_be_focused()
    page.get_by_text("no norm", exact=True).first.click()
    page.locator("[class*=st-key-remove-] button:visible").press("Enter")
    expect(focused).to_have_text(re.compile("BN$"))


def test_the_keyboard_trains_and_stops(page, server):
    opened(page, f"{server}/?{LONG}")
    page.keyboard.press("Control+Enter")
    status(page, "running")
    page.keyboard.press("Escape")
    status(page, "stopped")
    button(page, "Train").click()
    status(page, "running")
    expect(button(page, "Train")).to_contain_text("another")
    page.mouse.move(0, 0)  # and back: where nothing moves, no help opens
    button(page, "Train").hover()
    expect(page.get_by_role("tooltip")).to_be_visible()
    page.keyboard.press("Escape")
    status(page, "stopped")
