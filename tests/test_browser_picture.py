"""A chart that leaves its page: as a picture, on paper, in full screen."""

from urllib.parse import unquote

import pytest
from lab_browser import RESTED, SLOW, button, drawn, opened, redrawn, status, trained, until
from PIL import Image
from playwright.sync_api import expect

pytestmark = pytest.mark.browser


def test_on_paper_a_chart_stays_whole_and_has_no_buttons(page, server):
    opened(page, server)
    drawn(page)
    page.emulate_media(media="print")
    chart = page.locator(".live-chart").first
    expect(chart).to_have_css("break-inside", "avoid")
    expect(chart.locator(".modebar")).to_be_hidden()
    page.emulate_media(media="screen")


PICTURED = """const decode = HTMLImageElement.prototype.decode;
  HTMLImageElement.prototype.decode = function () { window.pictured = this.src; return decode.call(this); };"""
STILL = """(() => {
  const { updates } = document.querySelector(".live-plot").dataset, now = performance.now();
  if (window.updates !== updates) Object.assign(window, { updates, since: now });
  return now - window.since > 3000;
})()"""  # whether the first chart was not drawn anew for three seconds


def test_a_picture_is_opaque_and_bears_the_title_and_the_run(page, server, tmp_path):
    page.emulate_media(color_scheme="dark")
    page.add_init_script(f"{PICTURED} URL.revokeObjectURL = () => (window.revoked = true);")
    trained(page, server, "depth=1&width=4&steps=20&arm=../<b>50%{x}%26</b>&arm=BN;norm=batch", "done")
    until(page, "document.querySelector('.live-plot')._fullData.some(line => line.x.at(-1) === 20)")  # the last scores
    until(page, STILL)  # that the run is done may come later, and is drawn, too
    look, plot = "plot => JSON.stringify([plot.layout, plot._fullLayout._size])", page.locator(".live-plot").first
    before = plot.evaluate(look)
    plot.hover()
    with page.expect_download(timeout=SLOW) as download:
        plot.get_by_role("button", name="Download as a picture").click()
    assert download.value.suggested_filename == "Digits-1-4-sigmoid-b-50-x-b-BN-loss.png"
    assert plot.evaluate(look) == before
    download.value.save_as(tmp_path / "loss.png")
    with Image.open(tmp_path / "loss.png") as picture:
        box = plot.bounding_box()
        assert picture.width == 2 * box["width"] and picture.height > 2 * box["height"]
        assert picture.convert("RGBA").getextrema()[3] == (255, 255)
        assert picture.convert("RGB").getpixel((1, 1)) == (0x12, 0x15, 0x1C)
    svg = "new DOMParser().parseFromString(decodeURIComponent(pictured.split(/,(.*)/s)[1]), 'image/svg+xml')"
    lines = f"[...{svg}.querySelectorAll('.gtitle tspan.line')].map(line => line.textContent)"
    page.wait_for_timeout(2500)  # a telephone asks first whether to download it
    assert page.evaluate("window.revoked") is None
    assert page.evaluate(lines) == ["Loss", "Digits, 1 × 4 sigmoid: ../<b>50%{x}&</b>, BN"]
    assert '@font-face { font-family: "Source Sans"' in page.evaluate(f"{svg}.querySelector('style').textContent")


def test_a_picture_and_its_file_say_which_arm_layer_unit_and_step_they_show(page, server):
    """Pictures of two steps had one name, and nothing on them told which."""
    page.add_init_script(PICTURED)
    opened(page, f"{server}/?view=Moving+averages")
    drawn(page)
    until(page, "document.querySelectorAll('.live-plot')[1]?._fullData?.length")
    plot = page.locator(".live-plot").nth(1)
    plot.scroll_into_view_if_needed()
    plot.hover()
    with page.expect_download(timeout=SLOW) as download:
        plot.get_by_role("button", name="Download as a picture").click()
    assert "All units of a layer: BN before, layer 10, step 500" in " ".join(
        unquote(page.evaluate("pictured")).replace("<br>", " ").split()
    )
    assert download.value.suggested_filename.endswith("-units-overview-BN-before-layer-10-step-500.png")


def test_a_picture_has_the_page_s_font_where_the_browser_writes_its_name_without_quotes(page, server):
    """As Firefox does; there plotly loses the names that have some."""
    page.add_init_script(PICTURED)
    page.add_init_script("""const { get } = Object.getOwnPropertyDescriptor(CSSFontFaceRule.prototype, "style");
      Object.defineProperty(CSSFontFaceRule.prototype, "style", { get() {
        const { fontFamily, fontStyle, src } = get.call(this);
        return { fontFamily: fontFamily.replaceAll('"', ""), fontStyle, src }; } });""")
    opened(page, server)
    drawn(page)
    plot = page.locator(".live-plot").first
    assert plot.evaluate("plot => plot._fullLayout.font.family").startswith("Source Sans,")
    plot.hover()
    plot.get_by_role("button", name="Download as a picture").click()
    until(page, "window.pictured")
    assert "@font-face" in unquote(page.evaluate("pictured"))


def test_a_chart_in_full_screen_goes_on_and_esc_does_not_stop_the_training(page, server):
    trained(page, server)
    expect(button(page, "Stop")).to_be_enabled()
    page.wait_for_selector(RESTED, timeout=SLOW)
    plot = page.locator(".live-plot").first
    usual = plot.bounding_box()
    plot.hover()
    plot.get_by_role("button", name="Full screen").click()
    until(page, f"document.querySelector('.live-plot')._fullLayout.height > {1.2 * usual['height']}")
    filled = plot.bounding_box()
    assert filled["width"] > 1300 and filled["y"] + filled["height"] <= 900
    back = "getComputedStyle(document.fullscreenElement).backgroundColor"
    assert page.evaluate(back) == page.evaluate("getComputedStyle(document.querySelector('.stApp')).backgroundColor")
    redrawn(page)
    page.keyboard.press("Escape")
    page.evaluate("document.fullscreenElement && document.exitFullscreen()")  # as the key does in a browser's window
    until(page, f"document.querySelector('.live-plot')._fullLayout.height === {usual['height']}")
    redrawn(page)
    status(page, "running")
    page.keyboard.press("Escape")
    status(page, "stopped")
