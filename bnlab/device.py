"""The way of numbers to the device that trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .registry import LazyModule

if TYPE_CHECKING:
    from torch import Tensor

torch = LazyModule("torch")


def sent(array: np.ndarray, device: torch.device | str) -> Tensor:
    """An array as a tensor on the device. To a CUDA device it travels while Python goes on: nothing waits."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor if torch.device(device).type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
