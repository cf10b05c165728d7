"""The pages Inference and Why it works in a real browser: every view's charts are looked at, computed and drawn."""

import re

import pytest
from lab_browser import RESTED, SLOW, button, opened, until
from playwright.sync_api import Page, expect

from bnlab.figures import FIGURES
from pages.parts.views import INFERENCE, LAB, WHY

pytestmark = pytest.mark.browser
SMALL = "data=wine&depth=4&width=16&batch_size=32&steps=60&score_every=20&arm=no+norm&arm=BN;norm=batch"
DRAWN = """count => { const plots = [...document.querySelectorAll('.live-plot')].filter(p => p.offsetParent);
  const silent = "arms that differ in nothing but their learning rate";  // a chart that says so has nothing to draw
  const said = (p) => p.parentElement.textContent.includes(silent);
  const left = plots.find(p => !p.data?.length && !said(p));
  left?.scrollIntoView();  // what is far away is not asked for
  return plots.length == count && !left; }"""


@pytest.fixture(scope="module")
def run(browser, server):
    """The id of a run that was trained; nobody has looked at it."""
    page = opened(browser.new_page(), f"{server}/?{SMALL}")
    button(page, "Train").click()
    expect(page.locator(".board-line")).to_contain_text("Done after 60 steps", timeout=SLOW)
    until(page, "location.search.includes('run=')")
    run = page.evaluate("new URLSearchParams(location.search).get('run')")
    page.close()
    return run


def looked_at(page: Page, server: str, run: str, name: str) -> None:
    """Open a page at the run."""
    page.goto(f"{server}/{'why' if name == 'Why it works' else 'inference'}?run={run}")
    page.get_by_role("heading", name=name, exact=True).wait_for(timeout=SLOW)


@pytest.mark.parametrize(("name", "views"), [("Inference", INFERENCE), ("Why it works", WHY)])
def test_every_view_of_a_run_is_computed_and_drawn(page, server, run, name, views):
    looked_at(page, server, run, name)
    for view, figures in views.items():
        page.get_by_role("radio", name=view, exact=True).click()
        page.get_by_role("heading", name=FIGURES[figures[0]].label).first.wait_for(timeout=SLOW)
        page.wait_for_selector(RESTED, timeout=SLOW)
        page.wait_for_function(DRAWN, arg=len(figures), timeout=2 * SLOW)
        if "dials" in figures:  # a line an arm
            assert "\nno norm: shift" in page.locator(".live-note:visible").first.inner_text()


def test_another_alpha_is_drawn_without_training(page, server, run):
    looked_at(page, server, run, "Inference")
    page.get_by_role("radio", name="Any alpha", exact=True).click()
    page.wait_for_function(DRAWN, arg=3, timeout=2 * SLOW)
    slider = page.locator(".st-key-option-Any-alpha-alpha").get_by_role("slider")
    slider.focus()
    slider.press("ArrowLeft")
    named = "() => [...document.querySelectorAll('.live-plot')].some(p => p.data?.some(c => c.name == 'α = 0.98'))"
    page.wait_for_function(named, timeout=2 * SLOW)


def test_a_pressed_mistake_tells_its_symptom(page, server, run):
    looked_at(page, server, run, "Inference")
    page.get_by_role("radio", name="Broken on purpose", exact=True).click()
    page.set_viewport_size({"width": 480, "height": 900})
    pills = page.locator("[class*=st-key-option-Broken]").get_by_role("radio")
    expect(pills.first).to_be_visible()
    assert all(box["x"] + box["width"] <= 480 for box in (pill.bounding_box() for pill in pills.all()))
    page.get_by_role("button", name="never updated").or_(page.get_by_role("radio", name="never updated")).first.click()
    expect(page.get_by_text("Never updated. The moving averages still are 0 and 1.")).to_be_visible(timeout=2 * SLOW)


def test_solid_surfaces_stand_beside_each_other_where_there_is_room(page, server, run):
    looked_at(page, server, run, "Why it works")
    page.get_by_role("radio", name="Loss surface", exact=True).click()
    page.get_by_role("radio", name="3-D surface", exact=True).click()
    apart = """way => { const plot = [...document.querySelectorAll('.live-plot')].find(p => p.offsetParent);
      const { scene, scene2 } = plot?._fullLayout ?? {};
      if (!scene2) return false;
      const [a, b] = [scene.domain[way], scene2.domain[way]];
      return a[1] <= b[0] || b[1] <= a[0]; }"""
    page.wait_for_function(apart, arg="x", timeout=2 * SLOW)
    page.set_viewport_size({"width": 480, "height": 900})
    page.reload()
    page.get_by_role("radio", name="Loss surface", exact=True).click()
    page.get_by_role("radio", name="3-D surface", exact=True).click()
    page.wait_for_function(apart, arg="y", timeout=2 * SLOW)


def test_where_there_is_no_webgl_the_page_says_so_in_a_sentence_and_contours_are_drawn(page, server, run):
    page.add_init_script("""const { getContext } = HTMLCanvasElement.prototype;
      HTMLCanvasElement.prototype.getContext = function (kind, ...more) {
        return kind.includes("webgl") ? null : getContext.call(this, kind, ...more); };""")
    looked_at(page, server, run, "Why it works")
    page.get_by_role("radio", name="Loss surface", exact=True).click()
    page.get_by_role("radio", name="3-D surface", exact=True).click()
    words = page.locator(".live-empty ~ .live-words")
    expect(words).to_have_text("This browser has no WebGL, with which 3-D surfaces are drawn. Choose contours.")
    expect(page.locator(".live-plot")).to_be_hidden()
    page.get_by_role("radio", name="contours", exact=True).click()
    page.wait_for_function(DRAWN, arg=1, timeout=2 * SLOW)
    expect(page.locator(".live-plot")).to_be_visible()


def test_the_whole_of_plotly_comes_with_the_first_solid_surface_and_zoom_and_camera_stay(page, server, run):
    builds = []
    page.on("request", lambda r: builds.extend(re.findall(r"/api/(plotly[^?]*)", r.url)))
    plot = "[...document.querySelectorAll('.live-plot')].find(p => p.offsetParent)"

    def shown(look: str, kind: str) -> None:
        page.get_by_role("radio", name=look, exact=True).click()
        page.wait_for_function(f"{plot}?.data?.some(t => t.type == '{kind}')", timeout=2 * SLOW)
        solid = f"{plot}.querySelectorAll('canvas').length"  # what one build has drawn the other cannot take away
        page.wait_for_function(f"({solid} > 0) === {str(kind == 'surface').lower()}", timeout=SLOW)
        page.evaluate(f"{plot}.scrollIntoView({{block: 'center'}})")

    def drag(x: float, y: float) -> None:
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 80, y + 60, steps=4)
        page.mouse.up()

    opened(page, f"{server}/?run={run}")
    for view in LAB:
        page.get_by_role("radio", name=view, exact=True).click()
        page.wait_for_selector(RESTED, timeout=SLOW)
        page.wait_for_function(f"{plot}?.data?.length > 0", timeout=SLOW)
    page.get_by_role("link", name="Why it works").click()
    page.get_by_role("radio", name="Loss surface", exact=True).click()
    shown("contours", "contour")
    box = page.locator(".live-plot:visible .nsewdrag").first.bounding_box()
    drag(box["x"] + 40, box["y"] + 60)
    zoomed, camera = f"{plot}.layout.xaxis?.range?.map(Math.fround).join()", f"{plot}.layout.scene?.camera"
    page.wait_for_function(f"{plot}.layout.xaxis.autorange === false", timeout=SLOW)
    kept = page.evaluate(zoomed)
    assert builds == ["plotly-cartesian.min.js"]
    shown("3-D surface", "surface")
    assert builds == ["plotly-cartesian.min.js", "plotly.min.js"]
    box = page.locator(".live-plot:visible").bounding_box()
    drag(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    page.wait_for_function(f"{camera}?.eye.x != 1.8", timeout=SLOW)
    turned = page.evaluate(f"{camera}.eye")
    shown("contours", "contour")
    assert page.evaluate(zoomed) == kept
    shown("3-D surface", "surface")
    assert page.evaluate(f"{camera}.eye") == pytest.approx(turned)
    shown("contours", "contour")
    box = page.locator(".live-plot:visible .nsewdrag").first.bounding_box()
    page.mouse.dblclick(box["x"] + 100, box["y"] + 150)
    page.wait_for_function(f"{zoomed} != '{kept}'", timeout=SLOW)
    shown("3-D surface", "surface")
    shown("contours", "contour")
    assert page.evaluate(zoomed) != kept, "a chart that its other build has drawn still listens"
    assert len(builds) == 2
    assert page.evaluate(f"{plot}._ev.listenerCount('plotly_restyle')") == 1, "each build takes its own away as it goes"


def test_the_conventions_fit_a_telephone(page, server):
    page.set_viewport_size({"width": 480, "height": 900})
    page.goto(f"{server}/inference")
    lines = page.locator("[data-testid=stCode] code")
    expect(lines).to_have_count(4)
    page.wait_for_selector(RESTED, timeout=SLOW)
    boxes = [line.bounding_box() for line in lines.all()]
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= 480 for box in boxes)
    around = "lines.map(line => line.parentElement)"  # an inline one has no width to scroll in
    assert lines.evaluate_all(f"lines => {around}.every(e => e.clientWidth && e.scrollWidth <= e.clientWidth + 1)")
