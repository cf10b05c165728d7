"""The exported tables are the recorded numbers, to the last bit, in the form of the public surface."""

import csv

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from bnlab.database import in_terminal
from bnlab.experiment import Arm, Experiment, Settings
from bnlab.export import tables
from bnlab.record import LAYERS, UNITS
from bnlab.store import RunStore
from bnlab.train import train

SETTINGS = Settings(data="wine", depth=3, width=4, batch_size=16, steps=130, score_every=60)
ARMS = (
    Arm(label="plain, 'quoted' \"net\""),
    Arm(label="before", changes={"norm": "batch"}),
    Arm(label="after", changes={"norm": "batch", "placement": "after", "width": 5}),
    Arm(label="layer", changes={"norm": "layer", "depth": 2}),
)
REAL = Experiment(settings=SETTINGS, arms=ARMS, seeds=(2, 0))
KEYS = {
    "steps": ["arm", "seed", "step"],
    "layers": ["arm", "seed", "step", "layer"],
    "units": ["arm", "seed", "step", "layer", "unit"],
    "scores": ["arm", "seed", "step", "split", "statistics"],
    "population": ["arm", "seed", "step", "layer", "unit"],
}
COLUMNS = {  # as the README promises them; more may stand beside those of `layers`
    "steps": ["loss", "accuracy"],
    "layers": [
        *("grad_norm", "signal_grad_norm", "weight_norm", "update_ratio"),
        *("a_mean", "a_std", "z_mean", "z_std", "saturated"),
    ],
    "units": ["batch_mean", "batch_var", "moving_mean", "moving_var", "gamma", "beta"],
    "scores": ["loss", "accuracy"],
    "population": ["population_mean", "population_var"],
}
FORMATS = ("csv", "parquet")


def written(directory, experiment, to, records=None):
    """The tables of a run of this experiment, written and read back: {name: frame}."""
    store = RunStore(directory / "runs")
    run = store.create(experiment)
    with store.writer(run.id) as writer:
        for record in records or train(experiment):
            writer.keep(record)
    paths = tables.write(store.trace(run.id), to, directory / "tables")
    store.close()
    assert sorted(paths) == sorted((directory / "tables").iterdir())
    read = {"csv": pd.read_csv, "parquet": pd.read_parquet}[to]
    return {path.stem: read(path) for path in paths}


@pytest.fixture(scope="module")
def records():
    return list(train(REAL))


@pytest.fixture(scope="module", params=FORMATS)
def frames(request, records, tmp_path_factory):
    return written(tmp_path_factory.mktemp(request.param), REAL, request.param, records)


def bits(values):
    return np.ascontiguousarray(values, np.float32).view(np.uint32)


def same(a, b):
    """Equal to the last bit, but for which NaN it is: CSV knows only one."""
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
    np.testing.assert_array_equal(bits(a)[~np.isnan(a)], bits(b)[~np.isnan(b)])


def of(frame, arm, seed):
    return frame[(frame.arm == REAL.arms[arm].label) & (frame.seed == seed)]


def test_tables_keys_and_columns_are_those_of_the_public_surface(frames):
    assert set(frames) == set(KEYS)
    for name, frame in frames.items():
        assert list(frame.columns[: len(KEYS[name])]) == KEYS[name]
        rest = list(frame.columns[len(KEYS[name]) :])
        assert rest[: len(COLUMNS[name])] == COLUMNS[name]
        assert name == "layers" or rest == COLUMNS[name]
        assert not frame.duplicated(KEYS[name]).any()
        assert set(frame.arm) <= {arm.label for arm in ARMS} and set(frame.seed) == {0, 2}
        for key in KEYS[name]:
            assert pd.api.types.is_integer_dtype(frame[key]) or key in ("arm", "split", "statistics")


def test_steps_layers_and_units_are_the_records_to_the_last_bit(frames, records):
    for arm in range(len(ARMS)):
        s = REAL.arm_settings[arm]
        for seed in REAL.seeds:
            for table, quantities in (("steps", COLUMNS["steps"]), ("layers", LAYERS), ("units", UNITS)):
                mine = of(frames[table], arm, seed).sort_values(KEYS[table])
                if table == "units" and s.norm != "batch":
                    assert mine.empty
                    continue
                shape = {"steps": (), "layers": (s.depth,), "units": (s.depth, s.width)}[table]
                np.testing.assert_array_equal(mine.step, np.repeat(np.arange(130), int(np.prod(shape))))
                for axis, key in enumerate(KEYS[table][3:]):
                    index = 1 + np.indices((130, *shape))[axis + 1].ravel()
                    np.testing.assert_array_equal(mine[key], index)
                for quantity in quantities:
                    seen = np.stack([r.value(quantity, arm, seed) for r in records[:-1]])
                    same(mine[quantity], seen.ravel())


def test_scores_and_population_are_the_records_to_the_last_bit(frames, records):
    rows, units = 0, 0
    for record in records:
        for score in record.scores:
            for i, slot in enumerate(score.slots):
                mine = of(frames["scores"], *REAL.stacks[score.stack][slot])
                mine = mine[(mine.step == record.step) & (mine.split == score.split)]
                mine = mine[mine.statistics == score.statistics]
                same(mine.loss, score.loss[i : i + 1])
                same(mine.accuracy, score.accuracy[i : i + 1])
                rows += 1
        for population in record.population:
            for i, slot in enumerate(population.slots):
                mine = of(frames["population"], *REAL.stacks[population.stack][slot])
                mine = mine[mine.step == record.step].sort_values(["layer", "unit"])
                same(mine.population_mean, population.mean[:, i].ravel())
                same(mine.population_var, population.var[:, i].ravel())
                units += len(mine)
    assert rows == len(frames["scores"]) and units == len(frames["population"])


def test_the_last_scores_and_population_are_those_after_the_last_update(frames):
    for table in ("scores", "population"):
        assert sorted(set(frames[table].step)) == [0, 60, 120, 130]
    statistics = frames["scores"].groupby("arm").statistics.agg(set)
    batch = {"batch", "moving", "population"}
    assert [statistics[arm.label] for arm in ARMS] == [{"none"}, batch, batch, {"none"}]
    assert set(frames["scores"].split) == {"train", "test"}


def test_csv_numbers_are_the_float32_ones_however_they_are_read(records, tmp_path):
    frames = written(tmp_path, REAL, "csv", records)
    with open(tmp_path / "tables" / "layers.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for column in COLUMNS["layers"]:
        same(frames["layers"][column], [float(row[column]) for row in rows])


@pytest.mark.parametrize("to", FORMATS)
def test_nan_infinities_zeros_and_the_smallest_numbers_survive(records, tmp_path, to):
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 3.4028235e38, 0.1], np.float32)

    class Seen:
        def __init__(self, rows):
            self.rows = rows

    odd = []
    for record in records[:9]:
        parts = tuple(
            Seen({k: row if k == "layers" else np.resize(np.roll(special, record.step), len(row)) for k, row in rows})
            for rows in ([*part.rows.items()] for part in record.parts)
        )
        odd.append(record._replace(parts=parts))
    # only units and samples are odd; a loss that is not finite would end a network
    odd = [
        r._replace(
            parts=tuple(
                Seen(new.rows | {"steps": old.rows["steps"]}) for new, old in zip(r.parts, record.parts, strict=True)
            )
        )
        for r, record in zip(odd, records, strict=False)
    ]
    frames = written(tmp_path, REAL, to, odd)
    seen = np.stack([r.value("gamma", 1, 0) for r in odd])
    assert np.isnan(seen).any() and np.isinf(seen).any() and (np.signbit(seen) & (seen == 0)).any()
    same(of(frames["units"], 1, 0).sort_values(KEYS["units"]).gamma, seen.ravel())


@pytest.mark.parametrize("to", FORMATS)
def test_a_diverged_networks_rows_end_at_its_step_and_the_others_go_on(tmp_path, to):
    settings = Settings(data="diabetes", depth=3, width=8, steps=90, activation="relu", score_every=30)
    wild = Arm(label="wild", changes={"learning_rate": 100.0, "init_gain": 10.0})
    experiment = Experiment(settings=settings, arms=(Arm(label="calm"), wild))
    seen = list(train(experiment))
    frames = written(tmp_path, experiment, to, seen)
    assert set(frames) == {"steps", "layers", "scores"}
    broken = [not all(np.isfinite(r.value(q, 1)).all() for q in ("loss", *LAYERS)) for r in seen[:-1]]
    step = broken.index(True)
    for table in ("steps", "layers"):
        assert frames[table][frames[table].arm == "wild"].step.max() == step < 89
        assert frames[table][frames[table].arm == "calm"].step.max() == 89
    mine = frames["layers"][frames["layers"].arm == "wild"].sort_values(["step", "layer"])
    for q in LAYERS:
        same(mine[q], np.stack([r.value(q, 1) for r in seen[: step + 1]]).ravel())
    assert frames["scores"][frames["scores"].arm == "wild"].step.max() <= step + 1
    assert frames["scores"][frames["scores"].arm == "calm"].step.max() == 90
    for table in ("steps", "scores"):  # a regression has no accuracy
        assert "accuracy" not in frames[table] and np.isfinite(frames[table][frames[table].arm == "calm"].loss).all()


@pytest.mark.parametrize("to", FORMATS)
def test_summaries_stand_only_where_the_budget_thinned(tmp_path, to):
    settings = Settings(data="wine", depth=20, width=4, batch_size=8, steps=4000, budget_mb=8, score_every=2000)
    experiment = Experiment(settings=settings, arms=(Arm(label="none"), Arm(label="before", changes={"norm": "batch"})))
    first = next(iter(train(experiment)))
    sizes = {table: len(row) for table, row in first.parts[0].rows.items()}

    class Seen:
        def __init__(self, t):
            self.rows = {table: np.full(n, t, np.float32) for table, n in sizes.items()}

    rows = [first._replace(step=t, parts=(Seen(t),), scores=[], population=[], weights=None) for t in range(4000)]
    assert set(written(tmp_path / "short", experiment, to, rows[:500])) == set(KEYS)
    frames = written(tmp_path / "long", experiment, to, rows)
    assert set(frames) == {*KEYS, "steps_summary", "layers_summary"}
    for table in ("steps", "layers"):
        exact, thin = frames[table], frames[f"{table}_summary"]
        assert (exact[COLUMNS[table][0]] == exact.step).all()
        kept = sorted(set(exact.step))
        assert kept == [0, *range(kept[1], 4000)] and len(kept) > 1024 and kept[1] > 1
        assert list(thin.columns[: len(KEYS[table]) + 1]) == [*KEYS[table][:3], "until", *KEYS[table][3:]]
        for q in COLUMNS[table]:
            assert (thin[f"{q}_min"] == thin.step).all() and (thin[f"{q}_max"] == thin.until - 1).all()
            np.testing.assert_allclose(thin[f"{q}_mean"], (thin.step + thin.until - 1) / 2, rtol=1e-6)
        mine = thin[thin.arm == "none"].drop_duplicates("step")
        assert mine.step.iloc[0] == 0 and list(mine.step[1:]) == list(mine.until[:-1])
        assert mine.until.iloc[-1] == 4000
    strided = sorted(set(frames["units"].step))
    assert strided[0] == 0 and len(set(np.diff(strided))) == 1 and strided[-1] > 3900


@pytest.mark.parametrize("to", FORMATS)
def test_a_run_without_steps_has_the_same_tables_with_their_header(tmp_path, to, frames):
    none = Experiment(settings=SETTINGS.model_copy(update={"steps": 0}), arms=ARMS, seeds=REAL.seeds)
    ended = written(tmp_path / "ended", none, to)
    begun = written(tmp_path / "begun", none, to, iter(()))
    assert set(ended) == set(begun) == set(frames)
    for name, frame in frames.items():
        assert list(ended[name].columns) == list(begun[name].columns) == list(frame.columns)
        assert not len(begun[name]) and (len(ended[name]) > 0) == (name in ("scores", "population"))
    assert set(ended["scores"].step) == {0}


def test_a_file_left_from_another_run_goes_and_nothing_half_written_stays(tmp_path, records):
    target = tmp_path / "tables"
    target.mkdir()
    (target / "units.csv").write_text("of another run")
    frames = written(tmp_path, Experiment(settings=SETTINGS, arms=ARMS[:1]), "csv")
    assert set(frames) == {"steps", "layers", "scores"}


@pytest.mark.parametrize("ending", [OSError("the disk is full"), KeyboardInterrupt(), SystemExit(130)])
@pytest.mark.parametrize("to", FORMATS)
def test_of_a_table_that_breaks_off_nothing_stays_and_what_was_there_does(tmp_path, monkeypatch, to, ending):
    monkeypatch.setattr(tables, "ROWS", 1)  # the first piece is on disk already
    path = tmp_path / f"steps.{to}"
    path.write_text("of another run")

    def rows():
        yield pa.table({"step": [0, 1]})
        assert [*tmp_path.glob("*.part")]
        raise ending

    with pytest.raises(type(ending)):
        tables.write_file(rows(), tables.FORMATS[to], path)
    assert [*tmp_path.iterdir()] == [path] and path.read_text() == "of another run"


def damaged(trace):
    yield pa.table({"step": [0]})
    raise ValueError("damaged")


def test_where_a_later_table_cannot_be_read_an_earlier_export_stays_whole(records, tmp_path, monkeypatch):
    """It lost its first tables to the new run, and kept the others: two runs in one export."""
    store = RunStore(tmp_path / "runs")
    with store.writer((run := store.create(REAL)).id) as writer:
        for record in records:
            writer.keep(record)
    there = tmp_path / "tables"
    there.mkdir()
    for table in KEYS:
        (there / f"{table}.csv").write_text("of another run")
    monkeypatch.setattr(tables, "population", damaged)
    with pytest.raises(ValueError, match="damaged"):
        tables.write(store.trace(run.id), "csv", there)
    assert {path.read_text() for path in there.iterdir()} == {"of another run"}
    store.close()


def newest(rows):
    """The last step that the arm "before" has in some pieces of a table."""
    frame = pa.concat_tables(part.select(["arm", "step"]) for part in rows).to_pandas()
    return frame[frame.arm == "before"].step.max()


def test_of_what_came_after_a_divergence_only_its_own_scoring_is_told(tmp_path):
    """Scores and population of the step after it say what it left; what is summed up later is no row of it."""
    store = RunStore(tmp_path)
    settings = Settings(data="wine", depth=20, width=4, batch_size=8, steps=4000, budget_mb=8, score_every=2000)
    experiment = Experiment(settings=settings, arms=(Arm(label="none"), Arm(label="before", changes={"norm": "batch"})))
    first = next(iter(train(experiment)))
    with store.writer((run := store.create(experiment)).id) as writer:
        for t in range(4000):
            scores, population = ([], []) if t % 100 else (first.scores, first.population)
            writer.keep(first._replace(step=t, scores=scores, population=population, weights=None))
    trace, run = store.trace(run.id), store.run(run.id)
    for last, scored in ((198, 100), (199, 200), (200, 200)):
        trace.run = run._replace(diverged={(1, 0): (last, 1)})
        assert newest(tables.population(trace)) == newest(tables.scores(trace)) == scored
    for table in ("steps", "layers"):
        trace.run = run
        before, bucket = [*tables.summarized(trace, table)][-1]["step"].unique().to_pylist()[20:22]
        for last, summed in ((bucket - 1, before), (bucket, bucket)):
            trace.run = run._replace(diverged={(1, 0): (last, 1)})
            assert newest(tables.summarized(trace, table)) == summed
    store.close()


def test_of_two_exports_into_one_directory_at_once_one_is_there_whole(tmp_path, monkeypatch):
    """They wrote into one file, and the second found it gone."""
    monkeypatch.setattr(tables, "ROWS", 1)
    path, (ours, theirs) = tmp_path / "steps.csv", (pa.table({"step": [n] * 4}) for n in (1, 2))

    def rows():
        yield ours
        tables.write_file(iter([theirs]), tables.FORMATS["csv"], path)
        yield ours

    tables.write_file(rows(), tables.FORMATS["csv"], path)
    assert {*path.read_text().split()[1:]} == {"1"} and [*tmp_path.iterdir()] == [path]


def test_what_cannot_be_replaced_is_named_and_nothing_is_left(tmp_path):
    """What was to replace it was named, and is no more; on Windows a table is held by whatever shows it."""
    (path := tmp_path / "steps.csv").mkdir()
    with pytest.raises(OSError) as refused:
        tables.write_file(iter([pa.table({"step": [1]})]), tables.FORMATS["csv"], path)
    assert in_terminal(refused.value, tmp_path) == f"{path}: Is a directory."
    assert [*tmp_path.iterdir()] == [path]
