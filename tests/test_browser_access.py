"""What a visitor without a mouse or with weak eyes relies on, in a real browser: focus that is seen."""

import pytest
from lab_browser import opened
from playwright.sync_api import expect

pytestmark = pytest.mark.browser


def test_the_page_link_that_has_the_focus_is_outlined(page, server):
    opened(page, server)
    link = page.get_by_role("navigation").get_by_role("link", name="Runs")
    link.focus()
    expect(link).to_have_css("outline", "rgba(29, 36, 51, 0.8) solid 2px")
