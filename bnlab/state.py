"""What determines all that is to come of networks of one shape: parameters, the optimizer's memory, moving averages.

Every array is [slot, example, unit], and a layer's slots are ordered by what their norm does:

    none     | LN after, BN after     | BN before, LN before
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .data import DATASETS
from .experiment import Experiment, Network, Settings, slot_order
from .inits import initial_weights
from .memory import Memory
from .optimizers import OPTIMIZERS
from .registry import LazyModule

if TYPE_CHECKING:
    from torch import Tensor

torch = LazyModule("torch")

BLOCK = 32  # elements; a slot that fills whole blocks is computed alike wherever it stands (vector loops have no tail)


def blocks(rows: int, columns: int) -> int:
    """Elements set aside for a [rows, columns] matrix: whole blocks."""
    return -(-rows * columns // BLOCK) * BLOCK


def carve(flat: Tensor, start: int, shape: tuple[int, ...]) -> Tensor:
    """A view of shape [..., rows, columns] on the vectors `flat` from `start`; each matrix begins on a block."""
    *outer, rows, columns = shape
    size = blocks(rows, columns)
    view = flat[..., start : start + int(np.prod(outer)) * size].unflatten(-1, (*outer, size))
    return view[..., : rows * columns].unflatten(-1, (rows, columns))


class State:
    """Networks of one shape as three kinds of vectors; `p` are views on the parameters by name.

    S slots, L layers, d units, N slots with a norm, B with batch norm: weight_in [S, n_in, d], weight [L - 1, S, d, d],
    readout [S, d, n_out], bias [L, S, 1, d], readout_bias [S, 1, n_out], gamma and beta [L, N, 1, d]; moving_mean and
    moving_var [L, B, 1, d]. All is 0, but for gamma and moving_var: 1.
    """

    def __init__(self, experiment: Experiment, networks: tuple[Network, ...], device: str, dtype: torch.dtype):
        each = [experiment.arm_settings[n.arm] for n in networks]
        shared: Settings = each[0]
        data = DATASETS[shared.data]
        self.networks, self.settings, self.shared = networks, each, shared
        self.device, self.dtype = device, dtype
        self.memory = Memory(device, dtype)
        S, K, L, d = len(networks), shared.mini_batch, shared.depth, shared.width
        self.S, self.K, self.L, self.d = S, K, L, d
        self.t = 0

        kinds = [slot_order(s) for s in each]  # 0 none, 1 LN after, 2 BN after, 3 BN before, 4 LN before
        edge = [sum(kind < k for kind in kinds) for k in range(6)]
        span = lambda low, high: slice(edge[low], edge[high])  # noqa: E731
        self.kinds = [span(k, k + 1) for k in range(5)]
        self.none, self.after, self.before, self.normed = span(0, 1), span(1, 3), span(3, 5), span(1, 5)
        self.batch = span(2, 4)
        self.B, self.N = edge[4] - edge[2], S - edge[1]

        self.shapes = {
            "weight_in": (S, data.n_features, d),
            "weight": (L - 1, S, d, d),
            "readout": (S, d, data.n_classes),
            "bias": (L, S, 1, d),
            "readout_bias": (S, 1, data.n_classes),
            "gamma": (L, self.N, 1, d),
            "beta": (L, self.N, 1, d),
        }
        sizes = [int(np.prod(shape[:-2])) * blocks(*shape[-2:]) for shape in self.shapes.values()]
        self.start = dict(zip(self.shapes, np.cumsum([0, *sizes]).tolist(), strict=False))
        self.size = sum(sizes)
        self.parameters = self.vector()
        self.p = self.views(self.parameters)
        self.p["gamma"].fill_(1)
        self.optimizer = OPTIMIZERS[shared.optimizer](self.vector)
        moving = (2, L, self.B, 1, d)
        self.moving = self.memory.zeros(int(np.prod(moving[:-2])) * blocks(1, d))
        self.moving_averages = carve(self.moving, 0, moving)
        self.moving_mean, self.moving_var = self.moving_averages
        self.moving_var.fill_(1)  # the cold start: 0 and 1, as everywhere

    def vector(self) -> Tensor:
        """Zeros, one for each parameter."""
        return self.memory.zeros(self.size)

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Views by name on a vector that has one number for each parameter."""
        return {name: carve(flat, self.start[name], shape) for name, shape in self.shapes.items()}

    def inner(self, slots: slice) -> slice:
        """The same slots counted from the first with a norm: gamma and beta hold only those."""
        return slice(slots.start - self.normed.start, slots.stop - self.normed.start)

    def initialize(self) -> None:
        """Draw the initial weights: networks of one seed have the same, to the last bit, whatever their norm."""
        n_in, n_out = self.shapes["weight_in"][1], self.shapes["readout"][2]
        fans = [n_in] + [self.d] * self.L + [n_out]
        matrices = [self.p["weight_in"], *self.p["weight"], self.p["readout"]]
        for slot, (network, s) in enumerate(zip(self.networks, self.settings, strict=True)):
            for layer, into in enumerate(matrices, 1):
                w = initial_weights(s.init, s.init_gain, network.seed, layer, fans[layer - 1], fans[layer])
                into[slot].copy_(torch.from_numpy(w))

    def finite(self) -> list[bool]:
        """Whether all parameters of a network are finite, slot by slot."""
        told = torch.ones(self.S, dtype=torch.bool, device=self.device)
        for name, view in self.p.items():
            if view.numel():
                slots = self.normed if name in ("gamma", "beta") else slice(None)
                told[slots] &= view.isfinite().all(-1).all(-1).view(-1, view.shape[-3]).all(0)
        return told.tolist()

    @property
    def state(self) -> list[Tensor]:
        """The vectors that determine everything to come: parameters, the optimizer's memory, moving averages."""
        return [self.parameters, *self.optimizer.state, self.moving]

    def snapshot(self) -> np.ndarray:
        """The state as one vector; `restore` continues from it to the last bit."""
        return torch.cat(self.state).cpu().numpy()

    def restore(self, t: int, vector: np.ndarray) -> None:
        """Take up the state of a snapshot taken before update t. Raises ValueError if it belongs to other networks."""
        if len(vector) != sum(len(part) for part in self.state):
            raise ValueError("the snapshot belongs to networks of another shape.")
        at, self.t = 0, t
        for part in self.state:
            part.copy_(torch.tensor(vector[at : at + len(part)]))
            at += len(part)

    def take(self, old: State, at: int, slot: int) -> None:
        """Copy one network from slot `at` of another state into `slot` of this one: weights, moving averages and, with
        the same rule, the optimizer's memory."""
        pairs = [(old.p, self.p)]
        if type(old.optimizer) is type(self.optimizer):
            memories = zip(old.optimizer.state, self.optimizer.state, strict=True)
            pairs += [(old.views(a), self.views(b)) for a, b in memories]
        for source, into in pairs:
            for name, view in into.items():
                i, j = (
                    (at, slot) if name not in ("gamma", "beta") else (at - old.normed.start, slot - self.normed.start)
                )
                if j >= 0 and view.shape[-3]:
                    view.select(-3, j).copy_(source[name].select(-3, i))
        if self.settings[slot].norm == "batch":
            for source, into in ((old.moving_mean, self.moving_mean), (old.moving_var, self.moving_var)):
                into[:, slot - self.batch.start].copy_(source[:, at - old.batch.start])
