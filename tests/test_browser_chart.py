"""Charts in a real browser: zoom, axes, panels and words, while what they show grows."""

import re

import pytest
from lab_browser import RESTED, SHORT, SLOW, button, drawn, opened, redrawn, status, stopped, trained, until
from playwright.sync_api import Page, expect

from pages.parts.live import BOARD, CHART, script
from pages.parts.views import INFERENCE, LAB

pytestmark = pytest.mark.browser
SHOWN = "document.querySelector('.live-plot').layout.xaxis.range.map(Math.fround)"


def zoom_in(page: Page) -> None:
    """Draw a box over a part of the first chart."""
    box = page.locator(".live-plot .nsewdrag").first.bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 300, box["y"] + 200, steps=4)
    page.mouse.up()


def test_zoom_hover_and_hidden_curves_survive_updates_and_reruns(page, server):
    trained(page, server)
    until(page, "document.querySelector('.live-plot').layout.xaxis.range[1] > 100")
    page.locator(".live-plot .legendtoggle").first.click()
    until(page, "document.querySelector('.live-plot')._fullData.some(t => t.visible === 'legendonly')")
    zoom_in(page)
    until(page, "document.querySelector('.live-plot').layout.xaxis.autorange !== true")
    kept = page.evaluate(SHOWN)
    redrawn(page)
    assert page.evaluate(SHOWN) == kept
    page.locator("[class*=st-key-depth-] input").first.focus()
    page.keyboard.press("ArrowRight")  # a rerun of the page
    until(page, "location.search.includes('depth=4')")
    redrawn(page)
    assert page.evaluate(SHOWN) == kept
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

    run = trained(page, server, SHORT, "done")
    page.wait_for_selector(RESTED, timeout=SLOW)
    zoom_in(page)
    is_zoomed(True)
    kept = page.evaluate(SHOWN)
    view("Gradient flow", "gradient_flow")
    view("Loss and accuracy", "loss")
    is_zoomed(True)
    assert page.evaluate(SHOWN) == kept
    button(page, "Train").click()
    until(page, f"!(document.querySelector('.live-plot')?.dataset.address ?? '{run}').includes('{run}')")
    status(page, "done")
    is_zoomed(False)
    page.mouse.move(0, 0)
    page.locator(".st-key-head input").first.click()
    page.get_by_role("option").nth(1).click()  # the first run again
    until(page, f"document.querySelector('.live-plot')?.dataset.address?.includes('{run}')")
    is_zoomed(True)
    assert page.evaluate(SHOWN) == kept
    box = page.locator(".live-plot .nsewdrag").first.bounding_box()
    page.mouse.dblclick(box["x"] + 100, box["y"] + 100)
    is_zoomed(False)
    view("Gradient flow", "gradient_flow")
    view("Loss and accuracy", "loss")
    is_zoomed(False)


def test_a_value_below_the_mouse_stands_after_its_curve_s_name_and_a_colon(page, server):
    opened(page, server)
    drawn(page)
    box = page.locator(".live-plot .nsewdrag").first.bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 100)
    page.mouse.move(box["x"] + 205, box["y"] + 102)
    told = page.locator(".live-plot .hoverlayer .legendtext")
    expect(told.first).to_have_text(re.compile(r"^no norm: mini-batch: [\d.]+ nats$"))
    assert not [words for words in told.all_text_contents() if " :" in words]


def test_panels_on_a_telephone_stand_in_their_order(page, server):
    arms = "&".join(f"arm=A{i}" + (";norm=batch" if i == 1 else "") for i in range(1, 6))
    page.set_viewport_size({"width": 480, "height": 900})
    trained(page, server, f"depth=2&width=4&batch_size=16&steps=20&{arms}", "done")
    tops = """at => { const plot = document.querySelectorAll('.live-plot')[at];
      plot?.scrollIntoView();
      const titles = [...(plot?.querySelectorAll('.annotation') ?? [])].filter(t => /^A\\d$/.test(t.textContent));
      const found = titles.map(t => [t.getBoundingClientRect().y, t.textContent]).sort((a, b) => a[0] - b[0]);
      return found.length === 5 && found.map(t => t[1]).join(); }"""
    for name, at in (("Gradient flow", 2), ("Distributions", 0)):
        page.get_by_role("radio", name=name, exact=True).click()
        page.wait_for_selector(RESTED, timeout=SLOW)
        assert page.wait_for_function(tops, arg=at, timeout=SLOW).json_value() == "A1,A2,A3,A4,A5"
    page.route("**/api/runs/*/*", lambda asked: asked.fulfill(status=204, headers={"x-status": "done"}))
    page.set_viewport_size({"width": 1400, "height": 900})  # of a run that has nothing new
    rows = "new Set(titles.map(t => Math.round(t.getBoundingClientRect().y))).size"
    titles = "[...document.querySelectorAll('.live-plot .annotation')].filter(t => /^A\\d$/.test(t.textContent))"
    until(page, f"(titles => titles.length === 5 && {rows} < 5)({titles})")


def test_a_legend_of_many_rows_on_a_telephone_is_seen_as_a_whole_and_takes_no_room_from_the_curves(page, server):
    arms = "&".join(f"arm=an+arm+with+a+name+{i}" + (";norm=batch" if i % 2 else "") for i in range(6))
    page.set_viewport_size({"width": 390, "height": 900})
    trained(page, server, f"depth=2&width=4&batch_size=16&steps=20&{arms}", "done")
    page.wait_for_selector(RESTED, timeout=SLOW)
    plot = page.locator(".live-plot").first
    expect(plot.locator(".legendtoggle")).to_have_count(12)
    last, around = plot.locator(".legendtoggle").last.bounding_box(), plot.locator(".legend .bg").bounding_box()
    assert last["y"] + last["height"] <= around["y"] + around["height"] + 1
    assert around["height"] > 200 and plot.locator(".nsewdrag").bounding_box()["height"] > 300


def test_an_axis_whose_range_was_given_chooses_its_own_again(page, server):
    opened(page, f"{server}/?{SHORT}")
    for scale in ("log", "linear", "log"):  # the accuracy's linear axis is given
        page.get_by_role("radio", name=scale, exact=True).last.click()
        axis = "[...document.querySelectorAll('.live-plot')][1]?.layout?.yaxis"
        until(page, f"{axis}?.type === '{scale}' && !!({axis}.autorange) === {str(scale == 'log').lower()}")
        page.evaluate("document.querySelectorAll('.live-plot')[1].scrollIntoView()")


def test_what_an_empty_chart_says_wraps_and_gives_way_to_the_chart(page, server):
    page.set_viewport_size({"width": 480, "height": 900})
    opened(page, f"{server}/?depth=1&width=4&steps=0&arm=one&arm=two;activation=relu")
    button(page, "Train").click()
    until(page, "location.search.includes('run=')")  # until then the example is shown, which is done
    status(page, "done")
    page.get_by_role("radio", name="log", exact=True).first.click()
    words = page.locator(".live-empty ~ .live-words[role=status]").first
    expect(words).to_have_text(
        "Nothing after step 0 is recorded here yet, and a logarithmic axis has no place for step 0. Choose the linear "
        "axis, or wait for more steps."
    )
    lines = words.evaluate("e => e.clientHeight / parseFloat(getComputedStyle(e).lineHeight)")
    box = words.bounding_box()
    assert lines > 1.5 and box["x"] >= 0 and box["x"] + box["width"] <= 480
    assert words.evaluate("e => e.scrollWidth <= e.clientWidth")
    expect(page.locator(".live-plot").first).to_be_hidden()
    page.get_by_role("radio", name="linear", exact=True).first.click()
    until(page, "document.querySelector('.live-plot')?._fullData?.length > 0")
    expect(page.locator(".live-plot").first).to_be_visible()
    expect(page.locator(".live-words:visible")).to_have_count(0)


def test_curves_hidden_through_the_legend_are_hidden_when_their_view_comes_back(page, server):
    def is_hidden(*names: str) -> None:
        lines = "[...document.querySelector('.live-plot')?._fullData ?? []]"
        off = ".filter(line => line.showlegend && line.visible === 'legendonly').map(line => line.name)"
        until(page, f"{lines}{off} == '{','.join(names)}'")

    opened(page, server)
    drawn(page)
    is_hidden()
    page.locator(".live-plot .legendtoggle").nth(2).click()
    is_hidden("BN before: mini-batch")
    for other in ("Gradient flow", "Loss and accuracy"):
        page.get_by_role("radio", name=other, exact=True).click()
        page.wait_for_selector(RESTED, timeout=SLOW)
    drawn(page)
    is_hidden("BN before: mini-batch")
    page.locator(".st-key-options input").first.click()
    page.get_by_role("option", name="train and test").click()
    is_hidden()  # by its name: what stands in its place now is another curve
    page.locator(".st-key-options input").first.click()
    page.get_by_role("option", name="mini-batch and test").click()
    is_hidden("BN before: mini-batch")
    page.locator(".live-plot .legendtoggle").nth(2).click()
    is_hidden()


def test_a_value_on_a_card_does_not_break_away_from_its_unit(page, server):
    page.set_viewport_size({"width": 480, "height": 900})
    opened(page, server)
    status(page, "done")
    row = page.locator(".board-rows div").nth(1)
    row.evaluate("row => row.firstChild.textContent = 'Test accuracy at step 450, 1 of 8 seeds, and some more'")
    lines = "e => e.getBoundingClientRect().height / parseFloat(getComputedStyle(e).lineHeight)"
    assert row.locator("dt").evaluate(f"e => {{ e.style.alignSelf = 'start'; return ({lines})(e); }}") > 1.5
    assert row.locator("dd").evaluate(f"e => {{ e.style.alignSelf = 'start'; return ({lines})(e); }}") < 1.5


def test_views_that_wrap_on_a_telephone_have_corners_and_edges_of_their_own(page, server):
    page.set_viewport_size({"width": 480, "height": 900})
    opened(page, server)
    drawn(page)
    look = """button => { const is = getComputedStyle(button), box = button.getBoundingClientRect();
      return [is.borderRadius, is.borderLeftColor === is.borderRightColor, box.x >= 0 && box.right <= 480]; }"""
    expect(page.locator(".st-key-view [role=radio]").first).to_be_visible()  # the chart may be there before them
    views = page.locator(".st-key-view [role=radio]").all()
    assert len({view.bounding_box()["y"] for view in views}) == 2, "they wrap"
    for view in views:
        assert view.evaluate(look) == ["6px", True, True]


COVERED = """() => { const over = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 0.5
        && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 0.5;
      const things = [...document.querySelectorAll('[data-testid=stMain] :is(button, input, [role=slider], h2)')];
      const boxes = things.filter(e => !e.closest('.modebar') && e.checkVisibility()).map(e => {
        const range = document.createRange();  // of a heading the words
        range.selectNodeContents(e);
        return [e.textContent || e.ariaLabel, (e.tagName === 'H2' ? range : e).getBoundingClientRect()]; });
      return [...document.querySelectorAll('.live-plot .modebar-btn')].flatMap(button =>
        boxes.filter(([, box]) => over(box, button.getBoundingClientRect())).map(([name]) => name)); }"""


@pytest.mark.parametrize("width", [390, 900, 1200])
def test_the_toolbar_covers_nothing(page, server, width):
    page.set_viewport_size({"width": width, "height": 900})

    def seen(view: str, figures: tuple[str, ...]) -> list[str]:
        page.get_by_role("radio", name=view, exact=True).click()
        for at, name in enumerate(figures):  # what is far away is not drawn
            plot = f"document.querySelectorAll('.live-plot')[{at}]"
            there = f"{plot}?.dataset.address?.endsWith('/{name}') && {plot}.querySelector('.modebar-btn')"
            until(page, f"{plot}?.scrollIntoView() || {there}")
        page.wait_for_selector(RESTED, timeout=SLOW)
        return page.evaluate(COVERED)

    opened(page, server)
    covered = {view: seen(view, figures) for view, figures in LAB.items()}
    page.goto(f"{server}/inference")
    covered |= {view: seen(view, figures) for view, figures in [next(iter(INFERENCE.items()))]}
    assert not any(covered.values()), covered


def test_what_the_mouse_shows_has_the_page_s_colors_and_font_in_the_dark_too(page, server):
    page.emulate_media(color_scheme="dark")
    opened(page, f"{server}/?view=Gradient+flow")
    until(page, "document.querySelector('.live-plot')?.dataset.address?.endsWith('/gradient_flow')")
    until(page, "document.querySelector('.live-plot')?._fullData?.length > 3")
    page.evaluate("Plotly.Fx.hover(document.querySelector('.live-plot'), [{ curveNumber: 0, pointNumber: 9 }])")
    name, value = page.locator(".live-plot .hovertext rect").first, page.locator(".live-plot .hovertext .nums").first
    expect(name).to_have_css("fill", "rgb(18, 21, 28)")
    expect(value).to_have_css("fill", "rgb(230, 233, 240)")
    expect(value).to_have_css("font-family", re.compile("Source Sans"))


@pytest.mark.parametrize("files", [CHART, BOARD], ids=["chart", "board"])
def test_what_follows_a_run_goes_on_when_a_call_ends_that_another_has_followed(page, server, files):
    """As where a rerun comes while a component loads: the first call is ended when the second has begun."""
    page.goto(server)
    asked = page.evaluate(
        """async (source) => {
          const begin = (await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })))).default;
          const place = document.body.appendChild(document.createElement("div"));
          const data = { address: "/api/runs/nowhere", query: "", status: "running", label: "", title: "" };
          const call = () => begin({ data: { ...data }, parentElement: place, setTriggerValue: () => {} });
          let asked = 0;
          const fetched = window.fetch;
          window.fetch = (...words) => { asked += String(words[0]).includes("nowhere"); return fetched(...words); };
          const asks = async (more) => { const from = asked; for (let i = 0; i < 600 && asked < from + more; i++)
            await new Promise((done) => setTimeout(done, 50)); return asked - from; };
          const first = call(), second = call();
          first();
          const after = await asks(3);
          second();
          await new Promise((done) => setTimeout(done, 500));
          const end = asked;
          await new Promise((done) => setTimeout(done, 3000));
          return [after, asked - end];
        }""",
        script(*files),
    )
    assert asked[0] >= 3 and asked[1] == 0


def test_a_legend_that_needs_fewer_rows_in_a_wider_window_does_not_lie_on_the_curves(page, server):
    """plotly placed it by the margin of the narrower one."""
    page.set_viewport_size({"width": 1100, "height": 900})
    opened(page, server)
    drawn(page)
    below = """() => { const bottom = document.querySelector('.live-plot .legend').getBoundingClientRect().bottom;
      return bottom - document.querySelector('.live-plot .nsewdrag').getBoundingClientRect().top; }"""
    assert page.evaluate(below) <= 0
    width = page.evaluate("document.querySelector('.live-plot').clientWidth")
    page.set_viewport_size({"width": 1500, "height": 900})
    until(page, f"document.querySelector('.live-plot .main-svg').clientWidth > {width + 300}")
    until(page, f"({below})() <= 0")
