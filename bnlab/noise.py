"""Noise behind batch norm: what is left of its benefit when the means and variances it sets are shaken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .device import sent

if TYPE_CHECKING:
    from torch import Tensor


class Noise:
    """Noisy batch norm: y * scale + shift with numbers drawn anew for each unit and step (Santurkar et al. 2018, 2.1).

    shift is uniform in [-noise_shift, noise_shift], scale in [1, 1 + noise_scale]; both are the same for all examples
    of a mini-batch and belong to the seed and the step alone. The paper adds a small jitter for each example.
    """

    def __init__(self, noise_shift: float, noise_scale: float, seed: int, shift: Tensor, scale: Tensor):
        self.noise_shift, self.noise_scale, self.seed = noise_shift, noise_scale, seed
        self.shift, self.scale = shift, scale  # [L, 1, d]
        self.drawn = -1

    def draw(self, t: int) -> None:
        """The numbers of step t."""
        if t == self.drawn:
            return
        self.drawn = t
        u = np.random.default_rng([self.seed, 2, t]).random((2, *self.shift.shape))
        self.shift.copy_(sent(self.noise_shift * (2 * u[0] - 1), self.shift.device))
        self.scale.copy_(sent(1 + self.noise_scale * u[1], self.scale.device))
