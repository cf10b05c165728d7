"""Tables of looks: every number says which layer, quantile or length it belongs to."""

import numpy as np
import pytest

from bnlab import Arm, Experiment, Settings, lineage
from bnlab.executing import execute
from bnlab.export import looks
from bnlab.looking import look
from bnlab.probes import PROBES, Copies, checked
from bnlab.store import RunStore


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    store = RunStore(tmp_path_factory.mktemp("store"))
    settings = Settings(depth=8, width=6, data="wine", batch_size=16, steps=20, score_every=10)
    run = store.create(Experiment(settings=settings, seeds=(0, 1)))
    execute(store, run.id, lambda: None)
    return store.trace(run.id)


def table(trace, name):
    options = checked(name, {}) | ({"points": 5} if "points" in PROBES[name].options else {})
    look(trace.store, trace.run.id, name, options, 10, trace.snapshot(10))
    return looks.looked(trace, name, 10, options)


@pytest.mark.parametrize("name", PROBES)
def test_every_number_of_a_look_is_in_its_table_once_with_its_place(trace, name):
    found = table(trace, name)
    options = checked(name, {}) | ({"points": 5} if "points" in PROBES[name].options else {})
    seen = lineage.seen(trace) if PROBES[name].back else ()
    (arrays,) = Copies(trace.experiment).look(name, options, 10, trace.snapshot(10), seen)
    told = set(found["quantity"].to_pylist())
    axes = looks.AXES.get(name, {})
    assert axes.keys() <= arrays.keys()
    for q, values in arrays.items():
        if q in told:
            assert values.ndim - 1 == len(axes.get(q, ()))
            rows = [row for row in found.to_pylist() if row["quantity"] == q]
            assert len(rows) == np.isfinite(values).sum()
            assert all(row[column] is not None for row in rows for column, _ in axes.get(q, ()))
        elif np.isfinite(values).any():
            assert any(where == q for of in axes.values() for _, where in of)
    places = [tuple(v for k, v in row.items() if k != "value") for row in found.to_pylist()]
    assert len(set(places)) == len(places)


def test_layers_are_those_of_the_network(trace):
    """The layers covariate shift is measured in are not its first five, and the first Jacobian is that of layer 2."""
    rows = [r for r in table(trace, "shift").to_pylist() if (r["seed"], r["arm"]) == (0, "BN before")]
    assert [r["layer"] for r in rows if r["quantity"] == "change"] == [2, 4, 5, 6, 8]
    assert [r["layer"] for r in rows if r["quantity"] == "drift"] == list(range(1, 9))
    rows = [r for r in table(trace, "jacobian").to_pylist() if (r["seed"], r["arm"]) == (0, "BN before")]
    each = [(r["layer"], r["quantile"]) for r in rows if r["quantity"] == "layer"]
    assert each == [(l, q) for l in range(2, 9) for q in (0, 0.25, 0.5, 0.75, 1)]
    assert [r["layer"] for r in rows if r["quantity"] == "product" and r["quantile"] == 1] == list(range(1, 8))
    rows = [r for r in table(trace, "gradient_line").to_pylist() if (r["seed"], r["arm"]) == (1, "BN before")]
    assert [r["length"] for r in rows if r["quantity"] == "loss"] == [0, 0.5, 1, 1.5, 2, 3, 4]
    assert [r["length"] for r in rows if r["quantity"] == "change"] == [0.5, 1, 1.5, 2, 3, 4]


def test_as_text_numbers_stand_behind_what_they_belong_to(trace):
    told = looks.text("shift", table(trace, "shift"))
    assert "  BN before, seed 0, relative, layer 2 4 5 6 8: " in told
    assert "  BN before, seed 0, drift, layer 1 to 8: 0 " in told
    assert "mistake right; train mode; " in looks.text("broken", table(trace, "broken"))
    assert "  BN before, seed 1, top: " in looks.text("curvature", table(trace, "curvature"))
    whole = looks.text("shift", table(trace, "shift")).splitlines()
    few = looks.text("shift", table(trace, "shift"), most=3).splitlines()
    assert few == [*whole[:3], f"  ... and {len(whole) - 3} more lines; --probe shift tells them all."]


@pytest.mark.parametrize(
    ("statistics", "training", "single"),
    [
        (("batch",), "training mode", "population statistics"),
        (("moving",), "training with frozen moving averages", "frozen moving averages"),
        (
            ("batch", "moving"),
            "training mode (frozen arms: with their moving averages)",
            "population statistics (frozen arms: with their moving averages)",
        ),
    ],
)
def test_the_mode_is_that_of_the_arms(statistics, training, single):
    arms = tuple(Arm(label=s, changes={"norm": "batch", "statistics": s}) for s in statistics)
    experiment = Experiment(arms=arms)
    assert looks.mode("rank", experiment) == f"{training}, the next mini-batch"
    assert (
        looks.mode("jacobian", experiment) == f"layer and product: inference mode with {single}; training: {training}"
    )
    assert looks.mode("alphas", experiment) == "inference mode"
    assert looks.mode("invariance", experiment).endswith("; rate: eta/||W||^2, under Adam eta/||W||")
