"""The lab under a finger, on a telephone: its page is scrolled, also over a chart, until the chart is asked to zoom."""

import pytest
from lab_browser import RESTED, SLOW, drawn, until
from playwright.sync_api import Page

pytestmark = pytest.mark.browser
MAIN = "document.querySelector('[data-testid=stMain]')"
PLOT = "document.querySelector('.live-plot')"


@pytest.fixture
def telephone(browser, server):
    """The Lab on a telephone, its first chart in the middle of the window."""
    context = browser.browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(server)
    page.wait_for_selector(RESTED, timeout=SLOW)
    drawn(page)
    page.evaluate(f"{PLOT}.scrollIntoView({{block: 'center'}})")
    yield page
    context.close()


def swiped(page: Page) -> float:
    """By how many pixels the page is scrolled when a finger moves up over the first chart."""
    box, before = page.locator(".live-plot .nsewdrag").first.bounding_box(), page.evaluate(f"{MAIN}.scrollTop")
    x, y, devtools = box["x"] + 100, box["y"] + box["height"] / 2, page.context.new_cdp_session(page)
    for kind, places in [("touchStart", [0]), *(("touchMove", [i]) for i in range(10, 160, 10)), ("touchEnd", [])]:
        points = [{"x": x + i / 2, "y": y - i} for i in places]
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        page.wait_for_timeout(16)
    page.wait_for_timeout(500)
    return page.evaluate(f"{MAIN}.scrollTop") - before


def test_a_finger_scrolls_the_page_over_a_chart_but_while_zoom_is_pressed(telephone):
    zoom = telephone.locator(".live-plot").first.get_by_role("button", name="Zoom", exact=True)
    whole = telephone.evaluate(f"{PLOT}.layout.xaxis.range")
    assert swiped(telephone) > 100
    assert telephone.evaluate(f"{PLOT}.layout.xaxis.range") == whole
    zoom.tap()
    until(telephone, f"{PLOT}._fullLayout.dragmode === 'zoom'")
    assert swiped(telephone) == 0
    until(telephone, f"{PLOT}.layout.xaxis.autorange === false || {PLOT}.layout.yaxis.autorange === false")
    assert telephone.locator(".plotly-notifier .notifier-note").count() == 0, "Double-click, it says, over a control"
    zoom.tap()
    until(telephone, f"{PLOT}._fullLayout.dragmode === false")
    telephone.evaluate(f"{PLOT}.scrollIntoView({{block: 'start'}})")
    assert abs(swiped(telephone)) > 100


def test_a_tap_on_a_chart_tells_its_values_and_leaves_its_zoom(telephone):
    telephone.locator(".live-plot").first.get_by_role("button", name="Zoom in", exact=True).tap()
    until(telephone, f"{PLOT}.layout.xaxis.autorange === false")
    telephone.locator(".live-plot .nsewdrag").first.tap()
    telephone.locator(".live-plot .hoverlayer > *").first.wait_for(state="attached", timeout=SLOW)
    telephone.wait_for_timeout(500)  # longer than between the two taps of a double one
    assert telephone.evaluate(f"{PLOT}.layout.xaxis.autorange") is False


def test_the_help_of_the_views_stands_beside_them_not_in_a_line_of_its_own(telephone):
    choice, sign = telephone.locator(".st-key-views > *").all()
    beside, box = choice.bounding_box(), sign.bounding_box()
    assert box["x"] >= beside["x"] + beside["width"] and box["x"] + box["width"] <= 390
    assert beside["y"] <= box["y"] and box["y"] + box["height"] <= beside["y"] + beside["height"]
