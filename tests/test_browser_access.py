"""What a visitor without a mouse or with weak eyes relies on, in a real browser: focus, contrast, names, headings."""

import re
from itertools import pairwise

import pytest
from lab_browser import LONG, RESTED, SHORT, SLOW, button, drawn, opened, redrawn, stopped, trained, until
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser


def test_the_page_link_that_has_the_focus_is_outlined(page, server):
    opened(page, server)
    link = page.get_by_role("navigation").get_by_role("link", name="Runs")
    link.focus()
    expect(link).to_have_css("outline", "rgba(29, 36, 51, 0.8) solid 2px")


def test_the_window_is_called_by_its_page(page, server):
    opened(page, server)
    for name in ("Lab", "Inference", "Why it works", "Runs"):
        page.get_by_role("navigation").get_by_role("link", name=name, exact=True).click()
        expect(page).to_have_title(f"{name} · Batch Normalization Lab")


def test_every_help_says_what_it_helps_with(page, server):
    """Streamlit calls one "Help" that stands beside no label of its own."""
    opened(page, server)
    helps = {
        "Lab": ["Run", "View", "Loss"],
        "Inference": ["Three statistics"],
        "Why it works": ["Two dials"],
        "Runs": [],
    }
    for name, of in helps.items():
        page.get_by_role("navigation").get_by_role("link", name=name, exact=True).click()
        expect(page).to_have_title(re.compile(name))
        for words in of:
            expect(page.get_by_role("button", name=f"Help for {words}").first).to_be_visible()
        expect(page.get_by_role("button", name="Help", exact=True)).to_have_count(0)


def test_a_help_at_the_heading_of_another_view_is_named_by_that_heading(page, server):
    """It kept the name of the heading that had stood there."""
    opened(page, server)
    for view, heading in (("Moving averages", "All units of a layer"), ("Distributions", "Saturation")):
        page.get_by_role("radio", name=view).click()
        expect(page.get_by_role("button", name=re.compile(f"^Help for {heading}")).first).to_be_visible()
        for old in ("Loss", "Accuracy"):
            expect(page.get_by_role("button", name=f"Help for {old}", exact=True)).to_have_count(0)


def test_the_part_of_the_page_that_arrows_scroll_is_outlined_when_tab_comes_to_it(page, server):
    opened(page, server)
    main = page.get_by_role("main")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # Skip to main content
    expect(main).to_be_focused()
    expect(main).to_have_css("outline", "rgb(29, 36, 51) solid 2px")


def light(color: str) -> float:
    """The relative luminance of "rgb(85, 103, 222)" (WCAG 2)."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", color)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("scheme", "text"), [("dark", "rgb(230, 233, 240)"), ("light", "rgb(29, 36, 51)")])
def test_what_is_chosen_and_the_button_that_stands_out_can_be_read_in_both_themes(page, server, scheme, text):
    page.emulate_media(color_scheme=scheme)
    opened(page, server)
    for chosen in (".st-key-view [data-selected] p", "[data-testid=stSidebar] [data-testid=stSliderThumbValue] p"):
        expect(page.locator(chosen).first).to_have_css("color", text)
    train = button(page, "Train")
    train.hover()
    for state in ("hovered", "at rest"):
        back = train.evaluate("button => getComputedStyle(button).backgroundColor")
        assert 1.05 / (light(back) + 0.05) >= 4.5, f"white on the button, {state}"
        page.mouse.move(0, 0)
        page.wait_for_timeout(300)  # the color changes slowly
    expect(train.locator("kbd")).to_have_css("opacity", "1")


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_the_buttons_of_a_chart_s_toolbar_stand_out_from_the_page_in_both_themes(page, server, scheme):
    page.emulate_media(color_scheme=scheme)
    opened(page, server)
    drawn(page)
    back = light(page.get_by_test_id("stApp").evaluate("app => getComputedStyle(app).backgroundColor"))
    for name in ("Zoom", "Zoom in"):  # pressed, and not
        icon = page.get_by_role("toolbar", name="Loss", exact=True).get_by_role("button", name=name, exact=True)
        color = light(icon.locator("path").first.evaluate("path => getComputedStyle(path).fill"))
        assert (max(color, back) + 0.05) / (min(color, back) + 0.05) >= 3, name


def test_what_a_background_alone_tells_is_told_in_colors_of_the_visitors_own_too(page, server):
    page.emulate_media(forced_colors="active")
    opened(page, server)
    back = "(what, before) => getComputedStyle(what, before).backgroundColor"
    chosen, other = (
        page.locator(f".st-key-view [role=radio]{state}").first
        for state in ("[data-selected]", ":not([data-selected])")
    )
    assert chosen.evaluate(back) != other.evaluate(back)
    square = page.locator("[class*=st-key-][class*=arm-] summary").first
    assert square.evaluate("what => getComputedStyle(what, '::before').backgroundColor") == "rgb(213, 101, 43)"
    until(page, "document.querySelector('.board-done')")
    assert page.locator(".board-done").evaluate(back) != page.locator(".board-bar").evaluate(back)
    page.emulate_media(forced_colors="none")


def outline(page: Page) -> list[tuple[int, str]]:
    """The levels and words of the headings, in their order."""
    found = page.locator(":is(h1, h2, h3, h4, h5, h6):visible").all()
    return [(int(head.evaluate("head => head.tagName[1]")), head.inner_text()) for head in found]


def test_the_headings_are_an_outline_of_the_page(page, server):
    opened(page, server)
    drawn(page)
    until(page, "document.querySelectorAll('.board-card').length === 3")
    asking, shown = [(2, "Arms"), (2, "Shared settings")], [(2, "Loss"), (2, "Accuracy")]
    cards = [(3, label) for label in ("no norm", "BN before", "BN after")]
    done = (2, page.locator(".board-state").inner_text())
    assert outline(page) == [*asking, (1, "Batch Normalization Lab"), done, *cards, *shown]
    page.goto(f"{server}/inference")
    page.get_by_role("heading", name="Conventions").wait_for(timeout=SLOW)
    page.wait_for_selector(RESTED, timeout=SLOW)
    assert outline(page) == [
        (1, "Inference"),
        (2, "Three statistics, one network"),
        (2, "Fork this run"),
        (2, "Conventions"),
    ]


def test_the_run_s_state_is_told_when_it_changes_and_is_the_name_of_its_heading(page, server):
    opened(page, server)
    until(page, "document.querySelector('.board-state')?.innerText.startsWith('Done')")
    words = page.locator(".board-state [aria-live=polite]").inner_text()
    read = page.locator(".board").aria_snapshot()
    assert f'heading "{words}" [level=2]' in read, read


def test_what_the_cards_say_opens_by_keyboard_and_stays_open_while_they_change(page, server):
    opened(page, server)
    until(page, "document.querySelectorAll('.board-card').length === 3")
    told, items = page.locator(".board summary"), page.locator(".board details li")
    assert items.count() and not items.first.is_visible()
    told.focus()
    page.keyboard.press("Enter")
    assert items.first.inner_text() == "Mini-batch loss: Training loss, mean of the last 10 mini-batches."
    assert page.get_by_text(
        "Test accuracy (BN before, BN after): Over the whole test set, with moving averages."
    ).count()
    trained(page, server, SHORT, "done")
    told.focus()
    page.keyboard.press("Enter")
    before = page.locator(".board").get_attribute("data-run")
    page.keyboard.press("Control+Enter")
    until(page, f"document.querySelector('.board[data-status=done]:not([data-run=\"{before}\"])')")
    assert items.first.is_visible() and "Mini-batch loss" in items.first.inner_text()


def test_every_row_of_runs_is_a_group_by_its_name_before_it_has_the_focus(page, server):
    trained(page, server, SHORT, "done")
    trained(page, server, SHORT, "done")
    rows = page.locator("[class*=st-key-row-]")
    for way in ("link", "address"):
        page.get_by_role("link", name="Runs").click() if way == "link" else page.goto(f"{server}/runs")
        rows.nth(1).wait_for(timeout=SLOW)
        for row in rows.all():
            expect(row).to_have_role("group", timeout=SLOW)
            expect(row).to_have_accessible_name(row.get_by_role("heading", level=2).inner_text())
    rows.first.get_by_role("button", name="Export").click()
    for words in ("Run ID", "Command for its tables"):
        expect(page.get_by_role("button", name=f"Help for {words}")).to_be_visible()
    expect(page.get_by_role("button", name="Help", exact=True)).to_have_count(0)


def test_in_a_window_of_900_pixels_no_name_is_cut_and_no_button_drops_below_the_others(page, server):
    page.set_viewport_size({"width": 900, "height": 900})
    trained(page, server, SHORT, "done")
    page.goto(f"{server}/runs")
    row = "document.querySelector('[class*=st-key-row-]')?.querySelectorAll('button') ?? []"
    heights = f"[...{row}].map(button => button.getBoundingClientRect().y).filter(y => y > 0)"  # Streamlit hides a copy
    until(page, f"(ys => ys.length === 4 && new Set(ys).size === 1)({heights})")  # once the page is laid out
    page.goto(f"{server}/why")
    name = page.locator("[class*=st-key-preset-]").get_by_text("ReLU: He, Xavier, batch norm").locator("visible=true")
    assert name.evaluate("words => words.parentElement.scrollWidth <= words.parentElement.clientWidth")


def test_the_legend_is_gone_through_by_keys_while_its_chart_is_drawn_anew(page, server):
    trained(page, server)
    plot = page.locator(".live-plot").first
    expect(plot).to_have_role("group")
    expect(plot).to_have_accessible_name(re.compile("^Loss"))
    legend = plot.get_by_role("toolbar", name="Loss: legend")
    entries = legend.get_by_role("button")
    expect(entries).to_have_count(4)
    assert legend.locator("[tabindex='0']").count() == 1, "one stop of Tab"
    entries.first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    focused = page.get_by_role("button", name="no norm: test", exact=True).first
    expect(focused).to_be_focused()
    frame = focused.locator(".legendtoggle")  # Safari draws no outline here
    expect(frame).to_have_css("stroke", "rgb(29, 36, 51)")
    expect(frame).to_have_css("stroke-width", "2px")
    for key, pressed in (("Enter", "false"), ("Space", "true")):
        expect(focused).to_have_attribute("aria-pressed", "true" if pressed == "false" else "false")
        page.keyboard.press(key)
        expect(focused).to_have_attribute("aria-pressed", pressed)
        redrawn(page)
        expect(focused).to_be_focused()
        expect(focused).to_have_attribute("tabindex", "0")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")  # as a double-click: this one alone
    expect(legend.locator("[aria-pressed=true]")).to_have_count(1)
    redrawn(page)
    expect(legend.locator("[aria-pressed=true]")).to_have_text("no norm: test")
    expect(focused).to_be_focused()
    stopped(page)


def test_a_chart_s_curves_are_read_in_numbers_by_keys_while_it_follows_its_run(page, server):
    trained(page, server)
    numbers = page.locator(".live-chart .live-told").first
    expect(numbers.get_by_text("Loss in numbers")).to_be_visible()
    expect(numbers.get_by_role("listitem").first).to_be_hidden()
    numbers.locator("summary").focus()
    page.keyboard.press("Enter")
    told = numbers.get_by_role("listitem").filter(has_text="BN: mini-batch, smoothed. cross-entropy E (nats)")
    expect(told).to_be_visible()
    before = told.inner_text()
    expect(told).not_to_have_text(before)
    expect(told).to_be_visible()
    expect(numbers.locator("summary")).to_be_focused()
    stopped(page)


def test_a_chart_s_toolbar_bears_its_title_and_is_one_stop_of_tab(page, server):
    opened(page, server)
    drawn(page)
    bar = page.get_by_role("toolbar", name="Loss", exact=True)
    expect(bar.get_by_role("button", name="Zoom", exact=True)).to_have_attribute("tabindex", "0")
    expect(bar.get_by_role("button", pressed=True)).to_have_accessible_name("Zoom")
    bar.get_by_role("button", name="Pan", exact=True).click()
    expect(bar.get_by_role("button", pressed=True)).to_have_accessible_name("Pan")
    assert bar.locator("[tabindex='0']").count() == 1
    bar.get_by_role("button", name="Zoom", exact=True).focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator(":focus")).to_have_attribute("aria-label", "Full screen")
    hidden = "document.querySelectorAll('.live-plot [aria-hidden=true] :is(button, a, [tabindex])').length"
    assert page.evaluate(hidden) == 0, "nothing hidden can have the focus"
    read = page.locator(".live-plot").first.aria_snapshot()
    assert "ln 10" not in read and "img" not in read and 'button "no norm: test" [pressed]' in read, read


def test_tab_goes_through_all_that_export_has_opened(page, server):
    trained(page, server, SHORT, "done")
    page.goto(f"{server}/runs")
    export = page.locator("[class*=st-key-export-] button:visible").first
    export.focus()
    page.keyboard.press("Enter")
    page.locator("[data-testid=stPopoverBody] [data-testid=stDownloadButton]").wait_for(timeout=SLOW)
    met = []
    for _ in range(6):
        page.keyboard.press("Tab")
        met.append(page.evaluate("document.activeElement.ariaLabel || document.activeElement.innerText"))
    assert met[5].endswith("Export") or "Export" in met[5], met
    assert any("Experiment file" in name for name in met), met
    assert sum("Copy" in name for name in met) == 2, met


@pytest.mark.parametrize("around", ["document.body", "document.querySelector('[data-testid=stMain]')"])
def test_tab_leads_into_what_a_click_has_opened_where_the_button_has_no_focus_as_in_safari(page, server, around):
    page.add_init_script("delete Element.prototype.checkVisibility")  # as before Safari 17.4
    trained(page, server, SHORT, "done")
    page.wait_for_selector(RESTED, timeout=SLOW)
    page.locator(".st-key-head").get_by_role("button", name="Rename").click()
    name = page.get_by_role("textbox", name="Name")
    name.wait_for(timeout=SLOW)
    page.evaluate(f"document.activeElement.blur(); {around}.focus()")
    expect(page.locator(":focus").get_by_role("button", name="Rename")).to_have_count(0 if "body" in around else 1)
    page.keyboard.press("Tab")
    expect(name).to_be_focused()


def test_a_verdict_stands_long_enough_to_be_read_while_the_steps_go_on(page, server):
    trained(page, server, LONG.replace("batch_size=16", "batch_size=2"))
    page.evaluate(
        """() => {
          const [verdict, facts] = ["verdict", "facts"].map((name) => document.querySelector(`.board-${name}`));
          const all = { childList: true, subtree: true, characterData: true };
          const watch = (element, seen) => new MutationObserver(seen).observe(element, all);
          Object.assign(window, { told: [], steps: 0 });
          watch(verdict, () => told.push([performance.now(), verdict.dataset.tone]));
          watch(facts, () => steps++);
        }"""
    )
    until(page, "told.length >= 4 && steps > told.length")
    told = page.evaluate("told")
    gaps = [later - at for (at, tone), (later, other) in pairwise(told) if tone == other]
    assert gaps and min(gaps) > 1800
    stopped(page)
