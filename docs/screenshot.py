"""Take the README's picture: start the lab on an empty store, train the default experiment, photograph the page.

    .venv/bin/python -m docs.screenshot

Needs Chromium or Chrome. Writes lab.png beside this file.
"""

from pathlib import Path

from playwright.sync_api import sync_playwright

from benchmarks.served import CHROMIUM, server


def main() -> None:
    with server() as (address, _, _), sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 1080}, device_scale_factor=1.5, color_scheme="light")
        page.goto(f"{address}/?depth=20&seeds=0,1,2")
        page.locator("[class*=st-key-train-] button:visible").click()
        page.wait_for_selector("[data-status=running]", timeout=60_000)
        page.wait_for_selector("[data-status=done]", timeout=300_000)
        page.mouse.move(0, 0)
        page.wait_for_timeout(3000)  # the last update is drawn
        page.screenshot(path=Path(__file__).with_name("lab.png"))
        browser.close()


if __name__ == "__main__":
    main()
