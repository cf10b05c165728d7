"""What a visitor types, in a real browser: taken as it stands, refused in a sentence, shown as text."""

import re
from collections.abc import Callable
from urllib.parse import urlencode

import pytest
from lab_browser import LONG, RESTED, SLOW, button, opened, status, stopped, until
from playwright.sync_api import Page, expect

from pages.parts.controls import END
from pages.parts.words import INVISIBLE

pytestmark = pytest.mark.browser


def test_what_was_typed_just_before_train_is_trained(page, server):
    opened(page, f"{server}/?{LONG}")
    box = page.locator("[class*=st-key-learning_rate-] input").first
    box.click()
    box.fill("0.03")
    box.press("Enter")
    button(page, "Train").click()
    until(page, "location.search.includes('run=') && location.search.includes('learning_rate=0.03')")
    run = page.evaluate("new URLSearchParams(location.search).get('run')")
    stopped(page)
    opened(page, f"{server}/?run={run}")
    assert page.locator("[class*=st-key-learning_rate-] input").first.input_value().rstrip(END) == "0.03"


def write_over(page: Page, write: Callable, name: str, text: str) -> None:
    """Write over what stands in a control, typed or pasted, and wait until the address says it."""
    page.locator(f"[class*=st-key-{name}-] input").first.click()
    page.keyboard.press("Control+A")
    write(text)
    page.keyboard.press("Enter")
    said = re.compile(f"[?&]{name}={text}(&|$)")
    expect(page, f"{name} is {text}").to_have_url(said)
    page.wait_for_selector(RESTED, timeout=SLOW)


OVER = [("learning_rate", "0.15"), ("alpha", "0.97"), ("steps", "5000"), ("seeds", "0,1")]


@pytest.mark.parametrize("way", ["insert_text", "type"])  # pasted, typed
def test_what_is_written_over_a_value_is_taken_as_a_whole(page, server, way):
    """Also where it begins as the old one does: 0.15 over 0.1."""
    opened(page, f"{server}/?learning_rate=0.1&steps=500")
    for name, text in OVER:
        write_over(page, getattr(page.keyboard, way), name, text)


TWICE = [("learning_rate", "0.02", "0.025"), ("batch_size", "3", "37"), ("steps", "7", "70"), ("seeds", "3,4", "3,4,5")]


def test_what_is_written_over_something_typed_is_taken_as_a_whole(page, server):
    opened(page, f"{server}/?depth=4")
    for name, first, then in TWICE:
        write_over(page, page.keyboard.type, name, first)
        write_over(page, page.keyboard.insert_text, name, then)


@pytest.mark.parametrize("name", ["steps", "learning_rate", "batch_size", "seeds"])
def test_a_field_that_was_emptied_keeps_its_value(page, server, name):
    """Enter takes the first of the list there, which was the smallest choice: 0 steps."""
    opened(page, f"{server}/?steps=20&learning_rate=0.02&batch_size=32&seeds=2")
    box = page.locator(f"[class*=st-key-{name}-] input").first
    for write in ("", "3"):  # what was asked at first; and what was typed then
        if write:
            box.fill(write)
            box.press("Enter")
            until(page, f"new URLSearchParams(location.search).get('{name}') === '{write}'")
            page.wait_for_selector(RESTED, timeout=SLOW)
        held, asked = box.input_value(), page.url
        box.click()
        page.keyboard.press("Control+A")
        page.keyboard.press("Delete")
        page.keyboard.press("Enter")
        page.wait_for_timeout(500)
        page.wait_for_selector(RESTED, timeout=SLOW)
        expect(box).to_have_value(held)
        assert page.url == asked


def test_the_address_in_the_bar_can_be_read_and_opens_the_same_question(page, server):
    opened(page, f"{server}/?depth=3")
    page.get_by_role("button", name="Add arm").click()
    page.get_by_text("LN after", exact=True).click()
    write_over(page, page.keyboard.insert_text, "seeds", "0,1")
    plus = "arm=BN+before;norm=batch;placement=before&arm=BN+after;norm=batch;placement=after"
    asked = f"{server}/?depth=3&arm=no+norm&{plus}&arm=LN+after;norm=layer;placement=after&seeds=0,1"
    assert page.url == asked
    opened(page, asked)
    assert page.url == asked and not page.locator("[data-testid=stAlert]").count()
    opened(page, f"{server}/?{urlencode([('arm', 'a=1, 100 %'), ('arm', 'b%3Bc;depth=4')])}")
    write_over(page, page.keyboard.insert_text, "seeds", "0,1")
    assert page.url == f"{server}/?arm=a=1,+100+%25&arm=b%253Bc;depth=4&seeds=0,1"


def test_bad_input_is_a_sentence(page, server):
    opened(page, server)
    box = page.locator("[class*=st-key-batch_size-] input").first
    box.click()
    box.fill("1")
    box.press("Enter")
    sentence = "Mini-batch size K (examples) is 1; batch norm needs at least 2 examples to have a variance."
    expect(page.get_by_text(sentence).first).to_be_visible()
    expect(button(page, "Train")).to_be_disabled()
    page.goto(f"{server}/?depth=1000")
    expect(
        page.get_by_text("Depth L (hidden layers) is 1000; allowed is a whole number from 1 to 100.").first
    ).to_be_visible()


def test_words_of_a_visitor_are_no_links_pictures_or_icons(page, server):
    labels = [
        "![i](http://127.0.0.1:1/x.png)", "see www.example.com", "a.b@example.com", ":streamlit: :material/home: :+1:",
        "a -> b -- c <= d <->", "https://example.com",
    ]  # fmt: skip
    made = page.locator("[data-testid=stMain], [data-testid=stSidebar]").locator("a[href], img")
    page.goto(f"{server}/?{urlencode({labels[0]: 1, labels[1]: 2})}")
    expect(page.get_by_text("This address cannot be opened")).to_be_visible()
    expect(made).to_have_count(0)
    opened(page, f"{server}/?depth=1&width=4&steps=3&{urlencode([('arm', label) for label in labels])}")
    titles = page.locator("[data-testid=stSidebar] summary").all_inner_texts()
    assert [title.splitlines()[-1].replace(INVISIBLE, "") for title in titles[: len(labels)]] == labels
    button(page, "Train").click()
    status(page, "done")
    until(page, "location.search.includes('run=')")
    page.get_by_text("Rename").first.click()
    renamed = "; ".join(labels[1:5])
    page.locator("[data-testid=stPopoverBody] input").fill(renamed)
    page.keyboard.press("Enter")
    expect(page.locator(".st-key-head input").first).to_have_value(re.compile(f"· {re.escape(renamed)}$"))
    expect(page.get_by_test_id("stPopoverBody")).to_have_count(0)
    expect(page.locator(":focus")).to_have_text(re.compile("Rename"))
    page.get_by_role("radio", name="Distributions", exact=True).click()
    page.wait_for_selector(RESTED, timeout=SLOW)
    expect(made).to_have_count(0)
    page.get_by_role("link", name="Runs").click()
    name = page.locator("[class*=st-key-row-] strong")
    expect(name.first).to_be_visible()
    assert name.first.inner_text().replace(INVISIBLE, "") == renamed
    expect(made).to_have_count(0)
