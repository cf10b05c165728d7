"""One stack of networks and its data: a training step, a scoring, and going on without what has diverged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import nan, prod
from typing import TYPE_CHECKING

import numpy as np

from .data import DATASETS, split
from .device import sent
from .experiment import Experiment, Network
from .mlp import Statistics
from .population import population
from .quantities import Rows
from .record import Population, Score, batch_slots, layout
from .registry import LazyModule
from .sampling import DRAWN, mini_batches, parts_of_at_most
from .stack import Stack
from .state import State

if TYPE_CHECKING:
    from torch import Tensor

torch = LazyModule("torch")


class Group:
    """One stack with its data: what a step and a scoring of it need. `stack` holds the networks that are trained: all,
    until some have diverged, and None when the last of them has; `places` are their slots among all of them."""

    def __init__(self, experiment: Experiment, index: int, device: str, dtype: torch.dtype):
        self.experiment, self.index, self.device, self.dtype = experiment, index, device, dtype
        self.networks = experiment.stacks[index]
        self.settings = experiment.arm_settings[self.networks[0].arm]
        self.columns = layout(experiment, index)
        self.splits = {
            name: (
                sent(part.x, device).to(dtype),
                sent(part.y, device).to(torch.int64 if part.y.dtype.kind == "i" else dtype),
            )
            for name, part in zip(("train", "test"), split(self.settings.data, self.settings.standardize), strict=True)
        }
        self.batch_slots = batch_slots(experiment, index)
        self.population: Population | None = None
        self.whole: State | None = None  # of all networks, once some are left out
        self.take_up(self.networks)

    def take_up(self, networks: tuple[Network, ...]) -> None:
        """Train these networks of the stack, in its order, from their initial weights."""
        self.stack = Stack(self.experiment, networks, self.device, self.dtype)
        self.rows = Rows(self.stack, layout(self.experiment, self.index, networks))
        self.x = self.stack.room(len(networks), self.settings.mini_batch, DATASETS[self.settings.data].n_features)
        self.one_by_one = self.stack.one_by_one()
        self.places = [self.networks.index(n) for n in networks]
        at = {"units": self.batch_places}  # on the device, once
        self.among = {table: torch.tensor(at.get(table, self.places), device=self.device) for table in self.columns}
        self.drawn = -1

    def broken(self) -> list[Network]:
        """The networks that are trained and have a weight that is not finite: no step mends that."""
        if not self.places:
            return []
        return [n for n, finite in zip(self.stack.networks, self.stack.finite(), strict=True) if not finite]

    def leave_out(self, networks: list[Network]) -> None:
        """Go on without these networks; all others learn as they would beside them, to the last bit."""
        if not networks:
            return
        lasting = tuple(n for n in self.stack.networks if n not in networks)
        t, _ = self.stack.t, self.snapshot(networks)
        self.stack, self.rows, self.places, self.one_by_one = None, None, [], []  # their buffers make room
        if lasting:
            self.take_up(lasting)
            self.stack.t = t
        for slot, place in enumerate(self.places):
            self.stack.take(self.whole, place, slot)

    def snapshot(self, broken: Sequence[Network] = ()) -> np.ndarray:
        """The state of all networks of the stack: NaN for those left out or `broken`, which will be next: what is
        kept of them must not depend on when they are."""
        if not self.whole and not broken:
            return self.stack.snapshot()
        self.whole = self.whole or State(self.experiment, self.networks, self.device, self.dtype)
        for slot, place in enumerate(self.places):
            self.whole.take(self.stack, slot, place)
        for network in broken:
            lost = State(self.experiment, (network,), self.device, self.dtype)
            for part in lost.state:
                part.fill_(nan)
            self.whole.take(lost, 0, self.networks.index(network))
        return self.whole.snapshot()

    def step(self, t: int, record: bool) -> dict[str, Tensor]:
        """Update t of every network that is trained; the rows it showed, of all networks of the stack."""
        if not self.places:
            return self.among_all({}) if record else {}
        x, y = self.mini_batch(t)
        self.stack.gradient(x, y, self.rows if record else None)
        d, c = self.stack.direction()
        rows = self.rows.measured(d, c) if record else {}
        self.stack.update(d, c)
        return self.among_all(rows) if rows and self.whole else rows

    def among_all(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rows of the networks that are trained as rows of all: NaN for the others."""
        wide = {}
        for table, columns in self.columns.items():
            shape = (len(columns), *next(iter(columns.values()))[1])
            wide[table] = torch.full((prod(shape),), nan, dtype=self.dtype, device=self.device)
            axis = len(shape) - (2 if table in ("units", "samples") else 1)  # of the slots
            if table in rows:
                narrow = rows[table].view(*shape[:axis], -1, *shape[axis + 1 :])
                wide[table].view(shape).index_copy_(axis, self.among[table], narrow)
        return wide

    @property
    def batch_places(self) -> list[int]:
        """Where the batch norms that are trained stand among all batch norms of the stack."""
        return [i for i, slot in enumerate(self.batch_slots) if slot in self.places]

    def mini_batch(self, t: int) -> tuple[Tensor, Tensor]:
        """x [S, K, n_in] and y [S, K] of step t; networks of one seed see the same."""
        if t // DRAWN != self.drawn:
            self.drawn = t // DRAWN
            seeds = [n.seed for n in self.stack.networks]
            by_seed = {seed: mini_batches(self.settings, seed, self.drawn * DRAWN) for seed in set(seeds)}
            index = np.stack([by_seed[seed] for seed in seeds], 1)  # [DRAWN, S, K]
            self.index_of = sent(index, self.device)
        i = self.index_of[t % DRAWN]
        x, y = self.splits["train"]
        return self.x.copy_(x[i]), y[i]

    def scores(self, broken: Sequence[Network] = ()) -> Iterator[Score]:
        """Loss and accuracy over both splits with each kind of statistics; with the last score `population` is there.
        Not of the `broken` networks: what is kept of them must not depend on when they are left out.

        "batch": the split in near-equal mini-batches of at most K, each normalized by its own statistics (none for
        K = 1); "population": the whole training set at once; "moving": the moving averages; "none": the norm has none.
        """
        moments, self.population = [], None
        whole = {name: x[None] for name, (x, _) in self.splits.items()}
        for slot, networks, b in self.one_by_one:
            if self.stack.networks[slot] in broken:
                if b is not None:
                    moments.append([torch.full_like(self.stack.moving_mean[:, b : b + 1], nan)] * 2)
                continue
            if b is None:
                for name, x in whole.items():
                    yield self.score(name, "none", slot, [networks.forward(x)[0]])
                continue
            for name, x in whole.items() if self.stack.K > 1 else ():  # an example alone has no variance
                split_up = x.tensor_split(parts_of_at_most(self.stack.K, x.shape[1]), dim=1)
                yield self.score(name, "batch", slot, [networks.forward(part)[0] for part in split_up])
            moving = Statistics(*(q[:, b : b + 1].unbind(0) for q in self.stack.moving_averages))
            for name, x in whole.items():
                yield self.score(name, "moving", slot, [networks.forward(x, moving)[0]])
            x = whole["train"]
            outputs, found = population(networks, x)
            found = Statistics(*([q.to(x.dtype) for q in part] for part in found))
            yield self.score("train", "population", slot, [outputs])
            yield self.score("test", "population", slot, [networks.forward(whole["test"], found)[0]])
            moments.append([torch.stack(part) for part in found])
        if moments:
            mean, var = (torch.cat(part, 1) for part in zip(*moments, strict=True))
            moving = (of.where(~mean.isnan(), nan) for of in (self.stack.moving_mean, self.stack.moving_var))
            found = [self.among_all_batch_norms(of[:, :, 0]) for of in (mean, var, *moving)]
            self.population = Population(self.index, self.batch_slots, *found)

    def among_all_batch_norms(self, moments: Tensor) -> np.ndarray:
        """What is known of the batch norms that are trained, [L, batch norms, d], as of all: NaN for the others."""
        L, _, d = moments.shape
        wide = np.full((L, len(self.batch_slots), d), np.nan, moments.cpu().numpy().dtype)
        wide[:, self.batch_places] = moments.cpu().numpy()
        return wide

    def score(self, name: str, statistics: str, slot: int, outputs: list[Tensor]) -> Score:
        """Score one network's outputs, given in parts along the examples of the split."""
        loss, accuracy, _ = self.stack.criterion(torch.cat(outputs, 1), self.splits[name][1][None])
        return Score(
            self.index,
            name,
            statistics,
            (self.places[slot],),
            loss.cpu().numpy(),
            None if accuracy is None else accuracy.cpu().numpy(),
        )
