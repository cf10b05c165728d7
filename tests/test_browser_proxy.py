"""Below a path of another server, as a university shows it, the lab is whole and asks for nothing beside it."""

import re

import pytest
from lab_browser import RESTED, SLOW, button, drawn, opened, until
from playwright.sync_api import expect

from benchmarks import served

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def below():
    """The address of a server that is told below which path it is shown."""
    with served.server(STREAMLIT_SERVER_BASE_URL_PATH="labs/bn", BNLAB_WORKERS="1") as (address, _, _):
        yield address


def test_below_a_path_every_page_is_whole(below, page):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket: asked.append(socket.url.replace("ws:", "http:")))
    opened(page, f"{below}/?depth=2&width=8&batch_size=16&steps=20&arm=BN;norm=batch")
    button(page, "Train").click()
    until(page, "document.querySelector('.board[data-status=done]')")
    drawn(page)
    for name, last in {"Inference": "inference", "Why it works": "why", "Runs": "runs", "Lab": ""}.items():
        page.get_by_role("link", name=name, exact=True).click()
        expect(page).to_have_url(re.compile(rf"^{below}/{last}(\?.*)?$"))
        page.wait_for_selector(RESTED, timeout=SLOW)
        if name != "Runs":
            drawn(page)
    page.reload()
    drawn(page)
    assert {url for url in asked if not url.startswith((f"{below}/", "data:", "blob:"))} == set()
    assert any("/api/runs/" in url for url in asked) and any("/api/plotly" in url for url in asked)
    script = next(url for url in asked if "/static/js/" in url)
    assert page.request.get(script).headers["content-encoding"] == "gzip"  # from memory, as elsewhere
