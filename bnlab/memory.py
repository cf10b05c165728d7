"""Zeros for all that a stack keeps, side by side on large pages of memory.

A step passes over tens of megabytes. On pages of 4 kB, looking up where each lies takes a processor time that pages of
2 MB save; Linux gives them to who asks.
"""

from __future__ import annotations

import mmap
from contextlib import suppress
from math import prod
from typing import TYPE_CHECKING

from .registry import LazyModule

if TYPE_CHECKING:
    from torch import Tensor

torch = LazyModule("torch")

PIECE = 2**25  # bytes asked for at once; what nobody writes to is not taken
LINE = 128  # every tensor begins on a multiple of so many bytes


class Memory:
    """Where the tensors of one stack lie."""

    def __init__(self, device: str, dtype: torch.dtype):
        self.device, self.dtype = device, dtype
        self.left = None  # of the last piece, in bytes

    def zeros(self, *shape: int) -> Tensor:
        """A tensor of zeros. Raises MemoryError where there is no room for it."""
        if self.device != "cpu" or not hasattr(mmap, "MADV_HUGEPAGE"):
            return torch.zeros(*shape, device=self.device, dtype=self.dtype)
        n = prod(shape)
        size = -(-n * self.dtype.itemsize // LINE) * LINE
        if size > PIECE // 4:
            mine = piece(size)  # what is left is for smaller ones
        else:
            if self.left is None or len(self.left) < size:
                self.left = piece(PIECE)
            mine, self.left = self.left[:size], self.left[size:]
        return mine.view(self.dtype)[:n].view(shape)


def piece(size: int) -> Tensor:
    """So many bytes, all 0, on large pages where they fill some."""
    try:
        found = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"there is no room for {size} bytes") from error
    with suppress(OSError):  # a system may be built without them
        found.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(found, dtype=torch.uint8)
