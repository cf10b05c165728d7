"""Words for the page: a visitor's own words made harmless, and a run's state said in words."""

from __future__ import annotations

import re

MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:&^=\"'@/])")


def escaped(text: str) -> str:
    """A visitor's words for a place that renders Markdown: nothing in them is markup, a link, or an image."""
    return MARKDOWN.sub(r"\\\1", text)


def several(count: int, noun: str) -> str:
    """1 seed, 3 seeds."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
