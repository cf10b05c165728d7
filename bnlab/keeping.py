"""Writing a run: every step exactly while the budget lasts, then thinner, never without its spikes.

Tables steps and layers (the scalars) are kept exactly, and beside them, from the first step on, as a summary: mean,
min and max over buckets of `stride` steps, a stride that doubles so that the buckets stay few. Each kind of thing has
a share of the budget, and what one leaves the others may use. When all together have used up the budget, the kind that
exceeds its share by the most makes room: of the scalars the exact rows older than the last RECENT steps go, but for
the first of all, of units and samples every second step (then every fourth, ...), of scores and population rows every
second scoring. Snapshots of the weights have what is left, and looks what is left then; neither less than its share.

What makes room, and when, follows from the steps alone: the same experiment leaves the same rows, however it was paced,
paused or killed. So snapshots, one more for each pause, and looks, taken when someone asks, count for the rows as what
is set aside for them.
"""

from __future__ import annotations

import json
import time

import numpy as np

from .budget import SHARES, fit_looks, sizes
from .chunks import HEAVY, Table
from .record import Record, batch_slots, layout
from .run import Taken
from .store import RunStore
from .summary import CHUNK_ROWS, MOST_BUCKETS, ROW
from .train import scheduled

COMMIT_EVERY = 0.25  # seconds between two commits
PACE = 2.0  # seconds, at least, over which steps per second are counted
RECENT = 1024  # steps whose scalars are always exact; fewer where so many would take more than their share
MOST_SCORINGS = 1024  # steps of which scores, population rows and snapshots are kept

Scoring = tuple[str, int, list[tuple[int, str | bytes]]]  # its kind, its step, its rows (stack, data)


class Writer:
    """Keeps the records of one run as they come; a context manager that commits what is left at its end.

    A run that is resumed from a snapshot repeats steps it has: they are the same to the last bit and are passed over,
    as are its scorings; of a step whose row was there before they are kept when they come. Of two writers of one run
    the first to add a step goes on, the other ends.
    """

    def __init__(self, store: RunStore, run_id: str):
        self.store, self.run_id = store, run_id
        run = store.run(run_id)  # first: what another process adds from now on is noticed, see check()
        self.experiment = run.experiment
        self.budget = self.experiment.settings.budget_mb * 1_000_000
        self.share = {name: share * self.budget for name, share in SHARES.items()}
        layouts = [layout(self.experiment, i) for i in range(len(self.experiment.stacks))]
        self.tables = [
            Table(store, run_id, i, kind, columns) for i, l in enumerate(layouts) for kind, columns in l.items()
        ]
        self.heavy = [t for t in self.tables if t.kind in HEAVY]
        self.scalars = [t for t in self.tables if t.kind not in HEAVY]
        self.stride = max([t.stored_stride() for t in self.heavy], default=1)
        self.every = CHUNK_ROWS  # steps after which room is made; fewer where so many would take more than is open
        while self.every > 1 and 8 * sum(t.width for t in self.tables) * self.every > self.share["open"]:
            self.every //= 2
        with store.transaction() as db:
            for name in ("scores", "population"):  # at which it was stopped, see score()
                db.execute(f"delete from {name} where run = ? and step > ?", (run_id, store.run(run_id).step))
        self.scorings = {name: sizes(store.db, name, run_id) for name in ("scores", "population", "snapshots")}
        self.pending: list[Record] = []
        self.committed = self.started = time.monotonic()
        self.diverged = dict(run.diverged)
        self.step, self.scored = run.step, max(self.scorings["scores"], default=-1)
        self.marks = [(self.started, self.step)] * 2  # moments and steps between which the pace is taken

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *error: object) -> None:
        self.commit()
        self.store.shrink()

    def keep(self, record: Record) -> None:
        """Take a record; it is on disk at the next commit, COMMIT_EVERY seconds later if records keep coming."""
        self.pending.append(record)
        full = (record.step + 1) % self.every == 0 or record.scores or record.weights or self.step < 0
        if full or time.monotonic() - self.committed >= COMMIT_EVERY:
            self.commit()

    def wait(self) -> None:
        """While no record comes: have what is pending on disk as soon as if some did, and give a sign of life."""
        if time.monotonic() - self.committed >= COMMIT_EVERY:
            self.commit()
            with self.store.transaction() as db:
                self.check()
                db.execute("update runs set updated = ? where id = ?", (time.time(), self.run_id))

    def commit(self) -> None:
        """Write all that is pending, in one transaction. Raises as check() does."""
        self.committed = now = time.monotonic()
        records, self.pending = self.pending, []
        if not records:
            return
        new = [r for r in records if r.step > self.step]
        with self.store.transaction(grows=True) as db:
            self.check()
            self.add(db, [r for r in new if r.parts])
            self.step = max(self.step, records[-1].step)
            scorings = [scoring for r in records if r.step > self.scored for scoring in self.scorings_of(r)]
            self.scored = max([self.scored, *(step for _, step, _ in scorings)])
            if scorings or (new and (self.step + 1) % self.every == 0):
                self.fit(db)
            self.put(db, scorings)
            if now - self.marks[1][0] > PACE:
                self.marks = [self.marks[1], (now, self.step)]
            then, step = self.marks[0]
            rate = (self.step - step) / (now - then) if now > then else 0.0
            told = json.dumps([[*network, *where] for network, where in self.diverged.items()])
            db.execute(
                "update runs set step = ?, rate = ?, diverged = ?, updated = ?, version = version + 1 where id = ?",
                (self.step, rate, told, time.time(), self.run_id),
            )

    def check(self) -> None:
        """Raises KeyError if the run was deleted meanwhile, Taken if another process has gone on with it."""
        if self.store.run(self.run_id).step != self.step:
            raise Taken(self.run_id)

    @property
    def all_diverged(self) -> bool:
        return len(self.diverged) == len(self.experiment.networks)

    def scorings_of(self, record: Record) -> list[Scoring]:
        """The scores, population rows and snapshots of a step that has them."""
        told: dict[int, list] = {}
        for s in record.scores:
            accuracy = None if s.accuracy is None else s.accuracy.tolist()
            told.setdefault(s.stack, []).append([s.split, s.statistics, list(s.slots), s.loss.tolist(), accuracy])
        scores = [(stack, json.dumps(scores)) for stack, scores in told.items()]
        moments = [(p.stack, np.stack(p[2:]).astype(np.float32).tobytes()) for p in record.population]
        weights = [(i, v.astype(np.float32, copy=False).tobytes()) for i, v in enumerate(record.weights or [])]
        found = [("scores", scores), ("population", moments), ("snapshots", weights)]
        return [self.counted(name, record.step, rows) for name, rows in found if rows]

    def snapshot(self, step: int, vectors: list[np.ndarray]) -> None:
        """Keep the state from which training goes on at `step`, after all that is pending. Raises as check() does."""
        self.commit()
        rows = [(i, vector.astype(np.float32, copy=False).tobytes()) for i, vector in enumerate(vectors)]
        with self.store.transaction(grows=True) as db:
            self.check()
            scoring = self.counted("snapshots", step, rows)
            self.fit_the_rest(db)
            self.put(db, [scoring])

    def score(self, record: Record) -> None:
        """Keep the scores and population rows of a run that was stopped, unless it was resumed or deleted meanwhile.
        Nothing makes room for them, and beyond the last step they go when it is resumed: it has the same rows then as
        if it had never been stopped."""
        with self.store.transaction(grows=True) as db:
            stands = "update runs set version = version + 1 where id = ? and status = 'stopped' and step = ?"
            if db.execute(stands, (self.run_id, self.step)).rowcount:
                self.put(db, self.scorings_of(record._replace(weights=None)))  # these are kept where it rests

    def counted(self, name: str, step: int, rows: list[tuple[int, str | bytes]]) -> Scoring:
        """The rows (stack, data) of a step, counted already, so that what goes for them goes first."""
        self.scorings[name][step] = sum(len(data) + ROW for _, data in rows)
        return name, step, rows

    def put(self, db, scorings: list[Scoring]) -> None:
        for name, step, rows in scorings:
            if step in self.scorings[name]:
                row = f"insert or replace into {name} values (?, ?, ?, ?)"
                db.executemany(row, [(self.run_id, stack, step, data) for stack, data in rows])

    def add(self, db, records: list[Record]) -> None:
        """Append the rows of records to their tables: of a network that has diverged NaN, from the step after it on."""
        if not records:
            return
        steps, every = np.array([r.step for r in records]), [[part.rows for part in r.parts] for r in records]
        for i, networks in enumerate(self.experiment.stacks):
            tables = [t for t in self.tables if t.stack == i]
            rows = {t.kind: np.stack([parts[i][t.kind] for parts in every]) for t in tables}
            by_slot = {t.kind: self.by_slot(t, rows[t.kind]) for t in tables}
            if not np.isfinite(rows["layers"]).all() or not np.isfinite(rows["steps"]).all():
                self.find_divergence(i, steps, by_slot)
            for network in {*networks} & {*self.diverged}:
                after = steps > self.diverged[network][0]
                for kind, quantities in by_slot.items():
                    of = batch_slots(self.experiment, i) if kind == "units" else range(len(networks))
                    if (slot := networks.index(network)) in of:
                        quantities[after, ..., of.index(slot)] = np.nan
            for table in tables:
                table.add(db, steps, rows[table.kind], self.stride)

    def by_slot(self, table: Table, rows: np.ndarray) -> np.ndarray:
        """Rows [n, width] as a view [n, quantities, ..., slots]."""
        shape = next(iter(table.columns.values()))[1]
        view = rows.reshape(len(rows), -1, *shape)
        return np.moveaxis(view, -2, -1) if table.kind in HEAVY else view

    def find_divergence(self, stack: int, steps: np.ndarray, by_slot: dict[str, np.ndarray]) -> None:
        """Note for each network the first step whose loss or layers are not finite, and the layer it began in."""
        columns = layout(self.experiment, stack)["layers"]
        judged = {q: by_slot["layers"][:, j] for j, q in enumerate(columns) if q != "update_ratio"}  # inf where W is 0
        for slot, network in enumerate(self.experiment.stacks[stack]):
            broken = ~np.isfinite(by_slot["steps"][:, 0, slot])
            for values in judged.values():
                broken |= ~np.isfinite(values[:, :, slot]).all(1)
            if broken.any() and network not in self.diverged:
                at = int(broken.argmax())
                where = first_broken({q: values[at, :, slot] for q, values in judged.items()})
                self.diverged[network] = (int(steps[at]), where)

    def used(self) -> dict[str, int]:
        """Bytes that each kind of thing takes of the budget, less what fit_the_rest() looks after: what budget.size()
        finds in the file, with scorings that are not there yet, as these are counted before they are put."""
        return {
            "scalars": sum(t.bytes for t in self.scalars),
            "heavy": sum(t.bytes for t in self.heavy),
            "summary": sum(t.summary.bytes for t in self.scalars),
            "population": sum(self.scorings["population"].values()),
            "scores": sum(self.scorings["scores"].values()),
        }

    def fit(self, db) -> None:
        """Make what is kept fit the budget: what exceeds its share by the most makes room, as often as it takes."""
        share = self.share["summary"] / max(1, len(self.scalars))
        for table in self.scalars:
            most = MOST_BUCKETS
            while most > CHUNK_ROWS and most * 12 * table.width > share:
                most //= 2
            while table.summary.buckets > most:
                table.summary.halve(db)
        one = max(self.scorings["snapshots"].values(), default=0)  # training goes on from it, whatever its size
        aside = max(self.share["snapshots"], min(one, self.budget / 2)) + self.share["looks"] + self.share["open"]
        used = self.used()
        while sum(used.values()) > self.budget - aside:
            for kind in sorted(used, key=lambda kind: used[kind] - self.share[kind], reverse=True):
                if self.thin(db, kind):
                    break  # it may be enough
            else:
                break  # nothing is left that could go
            used = self.used()
        self.fit_the_rest(db)

    def thin(self, db, kind: str) -> bool:
        """Make room by one kind of thing; whether there was some to make."""
        before = self.used()[kind]
        if kind == "scalars":
            fit = int(self.share[kind]) // sum(4 * t.width for t in self.scalars)
            recent = min(RECENT, max(0, fit - 1))  # one more stays: the first of all
            for table in self.scalars:
                s = table.summary  # an open bucket may still have to be taken from the exact rows
                table.forget(db, min(self.step - recent, s.edge - s.stride))
        elif kind == "heavy":
            while self.used()[kind] == before > 0 and self.stride < 2**20:
                self.stride *= 2
                for table in self.heavy:
                    table.thin(db, self.stride)
        elif kind != "summary":
            self.halve(db, kind)
        return self.used()[kind] < before

    def halve(self, db, name: str) -> None:
        """Let every second step's scoring go, of two the first; the newest stays. Snapshots of pauses go before: they
        must not decide which of the others do."""
        steps = sorted(self.scorings[name])
        stay = {*steps[:-1:2], steps[-1]} if len(steps) > 2 else {*steps[-1:]}
        if name == "snapshots" and (regular := {*scheduled(self.experiment, steps), steps[-1]}) < {*steps}:
            stay = regular
        for step in {*steps} - stay:
            del self.scorings[name][step]
            db.execute(f"delete from {name} where run = ? and step = ?", (self.run_id, step))

    def fit_the_rest(self, db) -> None:
        """Make scorings few, and snapshots and looks fit into what the rows have left."""
        for name, kept in self.scorings.items():
            while len(kept) > MOST_SCORINGS:
                self.halve(db, name)
        snapshots, room = self.scorings["snapshots"], self.budget - self.share["open"] - sum(self.used().values())
        while sum(snapshots.values()) > room - self.share["looks"] and len(snapshots) > 1:
            self.halve(db, "snapshots")
        fit_looks(db, self.run_id, self.experiment, room - sum(snapshots.values()))


def first_broken(layer: dict[str, np.ndarray]) -> int:
    """The layer 1..L where a network broke: the lowest whose forward pass is not finite; else the highest whose signal
    gradient is not; else the lowest with another quantity that is not; 0 if only the readout did."""
    broken = {q: np.flatnonzero(~np.isfinite(values)) + 1 for q, values in layer.items()}
    forward = np.concatenate([broken[q] for q in ("a_mean", "a_std", "z_mean", "z_std")])
    if len(forward):
        return int(forward.min())
    if len(broken["signal_grad_norm"]):
        return int(broken["signal_grad_norm"].max())
    rest = np.concatenate(list(broken.values()))
    return int(rest.min()) if len(rest) else 0
