"""A writer ends where its run is deleted or taken by another, and nothing of it stays behind."""

import contextlib

import numpy as np
import pytest
from known_rows import LONG, keep, lively, same, scored, stored, written

from bnlab.database import OF_A_RUN
from bnlab.run import Taken


@pytest.mark.parametrize("last", ["keep", "snapshot", "score", "nothing"])
def test_of_a_run_that_is_deleted_while_it_is_written_nothing_stays(store, last):
    run_id = store.create(LONG).id
    records = list(scored(written(LONG, range(60), lively), 20))
    told = contextlib.nullcontext() if last == "score" else pytest.raises(KeyError, match="It may have been deleted")
    with told, store.writer(run_id) as writer:
        for record in records[:30]:
            writer.keep(record)
        writer.commit()
        store.delete(run_id)
        if last == "keep":
            for record in records[30:]:
                writer.keep(record)
        elif last == "snapshot":
            writer.snapshot(30, [np.zeros(6000, np.float32)])
        elif last == "score":
            writer.score(records[40])
        else:
            writer.pending.append(records[30])  # written when the writer ends
    rows = {table: store.db.execute(f"select count(*) from {table}").fetchone()[0] for table in OF_A_RUN}
    assert rows == dict.fromkeys(OF_A_RUN, 0) and not store.runs()


@pytest.mark.parametrize("last", ["keep", "snapshot"])
def test_of_two_writers_of_one_run_the_first_to_add_a_step_goes_on_and_the_other_ends(store, last):
    run_id, alone = store.create(LONG).id, store.create(LONG).id
    records = list(scored(written(LONG, range(150), lively), 20))
    keep(store, alone, records)
    keep(store, run_id, records[:50])
    with store.writer(run_id) as goes_on:
        taken = pytest.raises(Taken, match=f"^run {run_id} is being trained by another process")
        with taken, store.writer(run_id) as ends:
            for writer in (ends, goes_on):
                for record in records[40:50]:  # again from a snapshot
                    writer.keep(record)
                writer.commit()
            for record in records[50:130]:
                goes_on.keep(record)
            goes_on.commit()
            if last == "keep":
                for record in records[50:]:
                    ends.keep(record)
            else:
                ends.snapshot(60, [np.zeros(6000, np.float32)])
        for record in records[130:]:
            goes_on.keep(record)
    assert store.run(run_id).step == 149 and store.trace(run_id).snapshots() == store.trace(alone).snapshots()
    for quantity in ("loss", "grad_norm", "gamma", "z_sample"):
        a, b = (store.trace(r).read(quantity, 1, points=10**6) for r in (run_id, alone))
        np.testing.assert_array_equal(a.steps, b.steps)
        same(a.mean, b.mean)
    for table in ("scores", "population"):
        assert stored(store, run_id)[table] == stored(store, alone)[table]
