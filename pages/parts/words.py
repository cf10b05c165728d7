"""Words for the page: a visitor's own words made harmless, sentences, and how many there are of a thing."""

from __future__ import annotations

import re

MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:&^=\"'@/])")
# where a link, an icon or an arrow is made also of characters that a backslash keeps from being Markdown: https://,
# www., a@b, :name:, ->
MADE = re.compile(r"(?<=:)(?=\S)|(?<=www)(?=\.)|(?=@)|(?<=[<>~=-])(?=[>=-])", re.IGNORECASE)
PROSE = {"a", "an", "arm", "its", "run", "seeds", "the", "there", "this"}  # as a sentence may begin; else with a name
INVISIBLE = "\u2060"  # a word joiner: no width, no line break


def escaped(text: str) -> str:
    """A visitor's words for a place that renders Markdown: nothing in them is markup, a link, an image, or an icon."""
    return MARKDOWN.sub(r"\\\1", MADE.sub(INVISIBLE, text))


def capital(text: str) -> str:
    """A sentence with a capital, unless it begins with the name of a field, which stays as it is, but for seeds."""
    first, _, rest = text.partition(" ")
    prose = first in PROSE and not rest.startswith("is not a known field")
    return text[:1].upper() + text[1:] if prose else text


def listed(sentences: list[str]) -> str:
    """Sentences, maybe with a visitor's words, as a list for a place that renders Markdown."""
    return "\n".join(f"- {escaped(capital(each))}" for each in sentences)


def several(count: int, noun: str) -> str:
    """1 seed, 3 seeds, 20,000 steps."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
