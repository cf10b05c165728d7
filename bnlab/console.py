"""What the command line says where nobody may be reading any more, as in `| head`."""

from __future__ import annotations

import os
from contextlib import suppress
from errno import EINVAL
from typing import Any, TextIO


class Unheard:
    """Standard error, whose reader may be gone, as in `2>&1 | head`: what is said is lost, and a training goes on."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        with suppress(OSError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self.stream.flush()


def unread(error: Exception) -> bool:
    """Whether it says that nobody reads any more: on Windows an invalid argument, which is no file's name."""
    invalid = isinstance(error, OSError) and error.errno == EINVAL and error.filename is None
    return isinstance(error, BrokenPipeError) or (os.name == "nt" and invalid)
