"""Take the README's picture: start the lab on an empty store, train the default experiment, photograph the page.

    .venv/bin/python -m docs.screenshot

Needs Chromium or Chrome. Writes lab.png beside this file.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def main() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as store:
        server = subprocess.Popen(
            [sys.executable, "-m", "streamlit", "run", "app.py", "--server.headless=true", f"--server.port={port}"],
            cwd=HERE.parent,
            env=os.environ | {"BNLAB_STORE": store},
        )
        try:
            photograph(f"http://127.0.0.1:{port}")
        finally:
            server.terminate()
            server.wait()


def photograph(address: str) -> None:
    for _ in range(100):
        try:
            urlopen(f"{address}/_stcore/health").close()
            break
        except URLError:
            time.sleep(0.1)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 1080}, device_scale_factor=1.5, color_scheme="light")
        page.goto(f"{address}/?depth=20&seeds=0,1,2")
        page.locator(".st-key-train button:visible").click()
        page.wait_for_selector("[data-status=running]", timeout=60_000)
        page.wait_for_selector("[data-status=done]", timeout=300_000)
        page.mouse.move(0, 0)
        page.wait_for_timeout(3000)  # the last update is drawn
        page.screenshot(path=HERE / "lab.png")
        browser.close()


if __name__ == "__main__":
    main()
