"""A run that is stopped is scored where it ends; whatever ended it, it goes on as if it had never been ended."""

import itertools

import numpy as np
import pytest
import torch

from bnlab import Arm, Experiment, Settings, executing, figures, keeping, train
from bnlab.store import RunStore

ARMS = (Arm(label="none"), Arm(label="BN", changes={"norm": "batch"}), Arm(label="narrow", changes={"width": 5}))
SETTINGS = Settings(data="wine", depth=3, width=8, batch_size=16, steps=30, score_every=10)
ASKED = Experiment(settings=SETTINGS, arms=ARMS, seeds=(0, 1))
PIECES = 2 * (2 + 6 + 2)  # of a scoring: for each seed and arm, both splits with one or with three kinds of statistics


def ended(store, wish, step, run_id=None, piece=PIECES):
    """A run that meets with a wish, or a crash, when it has seen this step, or a piece of the scoring before; its id.
    Steps are counted from where it begins, where it is scored."""
    run_id, asked_before = run_id or store.create(ASKED).id, itertools.count()
    answered = step + PIECES * (step // 10) + piece

    def asked():
        if next(asked_before) < answered:
            return None
        if wish == "crash":
            raise OSError("the power went")
        return wish

    try:
        executing.execute(store, run_id, asked)
    except OSError:
        store.change(run_id, status="failed")
    return run_id


def kept(store, run_id):
    """All that is kept of a run's course, but for the weights that a pause adds."""
    tables = {"chunks": "kind, first, n, data", "summary": "kind, first, n, data"}
    tables |= {"scores": "step, data", "population": "step, data", "snapshots where step % 10 = 0": "step, data"}
    found = {}
    for table, what in tables.items():
        of = "and" if "where" in table else "where"
        rows = store.db.execute(f"select stack, {what} from {table} {of} run = ? order by 1, 2, 3", (run_id,))
        found[table] = rows.fetchall()
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    store = RunStore(tmp_path_factory.mktemp("store"))
    return kept(store, ended(store, "never", 99))


@pytest.mark.parametrize("step", [0, 9, 13])
@pytest.mark.parametrize("rested", [False, True])
def test_its_last_scores_are_those_of_a_run_that_was_to_end_there(store, step, rested):
    run_id = ended(store, "pause" if rested else "stop", step)
    if rested:
        store.change(run_id, status="stopped")
        executing.score(store, run_id)
    assert (store.run(run_id).status, store.run(run_id).step) == ("stopped", step)
    *_, last = train(ASKED.model_copy(update={"settings": SETTINGS.model_copy(update={"steps": step + 1})}))
    trace = store.trace(run_id)
    for score in last.scores:
        for slot, loss in zip(score.slots, score.loss, strict=True):
            arm, seed = ASKED.stacks[score.stack][slot]
            steps, losses, _ = trace.scores(arm, score.split, score.statistics)
            assert steps[-1] == step + 1 and losses[-1, seed] == loss
    steps, mean, var = trace.population(1)
    assert steps[-1] == step + 1
    np.testing.assert_array_equal(mean[-1].swapaxes(0, 1), last.population[0].mean)
    np.testing.assert_array_equal(var[-1].swapaxes(0, 1), last.population[0].var)


@pytest.mark.parametrize("step", [0, 9, 13, 29])
def test_it_goes_on_as_if_it_had_not_been_stopped(store, whole, step):
    run_id = ended(store, "stop", step)
    ended(store, "never", 99, run_id)
    assert store.run(run_id).status == "done"
    assert kept(store, run_id) == whole


@pytest.mark.parametrize("step", [0, 10, 30])
@pytest.mark.parametrize("wish", ["pause", "stop", "stop at rest", "interrupt"])
def test_a_wish_is_heard_in_a_scoring_and_it_goes_on_as_if_it_had_not_been(store, whole, step, wish):
    run_id = ended(store, wish.split()[0] if wish != "stop at rest" else "pause", step, piece=7)
    run = store.run(run_id)
    assert run.status == {"pause": "paused", "interrupt": "interrupted"}.get(
        wish, "paused" if "rest" in wish else "stopped"
    )
    assert run.step == max(0, step - 1), "the row that is seen before the first scoring, or that before this one"
    assert run.made == step
    if wish == "stop at rest":
        store.change(run_id, status="stopped")
        executing.score(store, run_id)
    scored = [at for at in (0, 10, 20, 30) if at < step] + [step] * ("stop" in wish)
    assert store.trace(run_id).scores(0, "test", "none")[0].tolist() == scored
    assert {row for row in kept(store, run_id)["scores"] if row[1] == step} <= {*whole["scores"]}
    ended(store, "never", 99, run_id)
    assert store.run(run_id).status == "done" and kept(store, run_id) == whole


def test_nothing_of_a_scoring_that_is_broken_off_stays_switched_on():
    records = train(ASKED, pieces=True)
    assert not next(records).holds_anything and torch.is_grad_enabled()
    last = records.send(True)
    assert last.scores and not last.parts and next(records, None) is None


@pytest.mark.parametrize("wish", ["pause", "interrupt", "stop"])
def test_a_fork_that_rests_in_its_first_scoring_goes_on_without_its_parent(store, wish, monkeypatch):
    monkeypatch.setattr(executing, "LONG_SCORING", 0)  # what is kept is not for the last scores
    parent = ended(store, "never", 99)
    forks = [store.fork(parent, 1, 10, {"learning_rate": 0.05}).id for _ in range(2)]
    executing.execute(store, forks[0], lambda: None)
    asked = itertools.count()
    executing.execute(store, forks[1], lambda: wish if next(asked) == 1 else None)
    assert (store.run(forks[1]).step, store.run(forks[1]).made) == (10, 10)
    store.delete(parent)
    executing.execute(store, forks[1], lambda: None)
    assert store.run(forks[1]).status == "done" and kept(store, forks[1]) == kept(store, forks[0])


def test_in_a_long_scoring_a_run_gives_signs_of_life_and_keeps_what_it_has(store, monkeypatch):
    monkeypatch.setattr(keeping, "COMMIT_EVERY", 1e9)
    run, seen, first = store.create(ASKED), [], 20 + 2 * PIECES  # of the pieces of the scoring at step 20

    def asked():
        seen.append((store.run(run.id).step, store.run(run.id).updated))
        if len(seen) > first:
            monkeypatch.setattr(keeping, "COMMIT_EVERY", 0)

    executing.execute(store, run.id, asked)
    steps, moments = zip(*seen[first : first + PIECES], strict=True)
    assert steps == (10, *[19] * (PIECES - 1)), "rows of ten steps were not on disk"
    assert len({*moments}) > PIECES / 2


@pytest.mark.parametrize("meanwhile", ["resumed", "deleted"])
def test_a_run_that_does_not_stand_any_more_gets_no_last_scores(store, whole, meanwhile, monkeypatch):
    change = store.change

    def overtaken(run_id, **columns):
        change(run_id, **columns)
        if columns["status"] == "stopped":
            store.delete(run_id) if meanwhile == "deleted" else change(run_id, status="queued")

    monkeypatch.setattr(store, "change", overtaken)
    run_id = ended(store, "stop", 13)
    assert {step for _, step, _ in kept(store, run_id)["scores"]} == ({0, 10} if meanwhile == "resumed" else set())


def test_where_a_scoring_takes_long_nobody_waits_for_another(store, monkeypatch):
    monkeypatch.setattr(executing, "LONG_SCORING", 0)
    assert store.trace(ended(store, "stop", 13)).scores(0, "test", "none")[0].tolist() == [0, 10]


def test_a_step_after_a_crash_is_one_that_was_not_recorded(store, whole):
    run_id = ended(store, "crash", 17)
    assert (store.run(run_id).step, store.trace(run_id).snapshots()[-1]) == (17, 10), "seven updates are lost"
    for step in (18, 19):
        executing.execute(store, run_id, lambda: None, steps=1)
        assert (store.run(run_id).status, store.run(run_id).step) == ("paused", step)
    ended(store, "never", 99, run_id)
    assert kept(store, run_id) == whole


@pytest.mark.parametrize(("wish", "step"), [("pause", 0), ("interrupt", 0), ("crash", 20)])
def test_a_step_makes_the_update_of_a_row_that_was_seen_before_it(store, whole, wish, step):
    """In the first scoring, or between a scored row and its update."""
    run_id = ended(store, wish, step, piece=PIECES if wish == "crash" else 7)
    run = store.run(run_id)
    assert run.step == store.trace(run_id).snapshots()[-1] == run.made == step
    for made in (step + 1, step + 2):
        executing.execute(store, run_id, lambda: None, steps=1)
        assert (store.run(run_id).status, store.run(run_id).made) == ("paused", made)
    ended(store, "never", 99, run_id)
    assert kept(store, run_id) == whole


def test_the_last_of_single_steps_ends_the_run(store, whole):
    run_id = ended(store, "pause", 27)
    executing.execute(store, run_id, lambda: None, steps=1)
    assert (store.run(run_id).status, store.run(run_id).step) == ("paused", 28)
    executing.execute(store, run_id, lambda: None, steps=1)
    assert store.run(run_id).status == "done" and kept(store, run_id) == whole


def test_a_run_stopped_where_it_had_rested_before_it_went_further_has_no_scores_there(store, whole):
    run_id = ended(store, "pause", 14)
    ended(store, "crash", 2, run_id, piece=0)  # from step 15 on nothing is scored before 20
    assert (store.run(run_id).step, store.trace(run_id).snapshots()[-1]) == (17, 15)
    store.change(run_id, status="stopped")
    executing.score(store, run_id)
    ended(store, "never", 99, run_id)
    assert kept(store, run_id) == whole


def test_a_run_stopped_among_steps_it_had_recorded_has_no_scores_between_them(store, whole):
    run_id = ended(store, "crash", 17)
    ended(store, "stop", 2, run_id)
    assert store.run(run_id).step == 17
    ended(store, "never", 99, run_id)
    assert kept(store, run_id) == whole


def test_the_first_row_can_be_seen_before_the_scoring_and_its_scores_are_kept_when_they_come(store, whole):
    run_id = store.create(ASKED).id
    records = train(ASKED, ahead=True)
    with store.writer(run_id) as writer:
        writer.keep(next(records))
        trace = store.trace(run_id)
        assert trace.read("loss", 0).steps.tolist() == [0] and trace.run.step == 0
        assert not len(trace.scores(0, "train", "batch")[0]) and not trace.snapshots()
        for view in ("units_overview", "three_losses"):
            assert figures.draw(view, trace, {"arm": "1"}).layout.annotations[0].text == "No step is scored yet."
        for record in records:
            writer.keep(record)
    assert kept(store, run_id) == whole


def test_a_run_that_breaks_off_in_its_first_scoring_has_these_scores_when_it_was_resumed(store, whole):
    run_id = store.create(ASKED).id
    with store.writer(run_id) as writer:
        writer.keep(next(train(ASKED, ahead=True)))
    ended(store, "never", 99, run_id)
    assert kept(store, run_id) == whole
