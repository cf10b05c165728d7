"""The cards say what was recorded, in words that hold for every arm."""

import re

import numpy as np
import pytest
from known_rows import written
from looked_at import recorded

from bnlab import cards, figures
from bnlab.activations import ACTIVATIONS
from bnlab.executing import execute
from bnlab.experiment import Arm, Experiment, Settings
from bnlab.reading import Trace
from bnlab.settings import MAX_LABEL, about
from bnlab.store import RunStore
from bnlab.train import train

HTML = "<b>bold</b> & x"
SMALL = Settings(data="wine", depth=3, width=4, batch_size=16, steps=6)
ARMS = (Arm(label="plain"), Arm(label=HTML, changes={"norm": "batch"}), Arm(label="LN", changes={"norm": "layer"}))


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    store = RunStore(tmp_path_factory.mktemp("store"))
    run = store.create(Experiment(settings=SMALL, arms=ARMS))
    execute(store, run.id, lambda: None)
    yield store.trace(run.id)
    store.close()


def test_the_statistics_of_a_test_score_are_named_where_there_are_some(trace):
    helps = [arm["rows"][1]["help"] for arm in cards.state(trace)["arms"]]
    plain = "Over the whole test set."
    assert helps == [plain, "Over the whole test set, with moving averages.", plain]


def test_what_the_cards_say_is_told_once_for_the_arms_that_share_it_and_else_by_name(trace):
    state = cards.state(trace)
    loss, plain, normed, *gradients = state["told"]
    assert loss == "Mini-batch loss: Training loss, mean of the last 6 mini-batches."
    assert plain == "Test accuracy (plain, LN): Over the whole test set."
    assert normed == f"Test accuracy ({HTML}): Over the whole test set, with moving averages."
    by_help = {}
    for arm in state["arms"]:
        by_help.setdefault(arm["verdict_help"], []).append(arm["label"])
    whose = [f" ({', '.join(labels)})" if len(by_help) > 1 else "" for labels in by_help.values()]
    assert gradients == [f"Gradient{of}: {help}" for of, help in zip(whose, by_help, strict=True)]


def test_the_mean_over_seeds_is_named(tmp_path):
    store = RunStore(tmp_path)
    run = store.create(Experiment(settings=SMALL, arms=ARMS[:2], seeds=(0, 1)))
    execute(store, run.id, lambda: None)
    helps = [arm["rows"][1]["help"] for arm in cards.state(store.trace(run.id))["arms"]]
    ends = "mean over 2 seeds."
    assert helps == [f"Over the whole test set, {ends}", f"Over the whole test set, with moving averages, {ends}"]


def test_a_mean_says_which_seeds_it_is_over_where_some_have_no_number(tmp_path, monkeypatch):
    """It said "over 3 seeds" of a mean over the two that had one."""
    store = RunStore(tmp_path)
    run = store.create(Experiment(settings=SMALL, arms=ARMS[:1], seeds=(0, 1, 2)))
    execute(store, run.id, lambda: None)
    scores = np.array([[0.5, np.nan, 0.75]])
    monkeypatch.setattr(Trace, "scores", lambda *asked, **more: (np.array([6]), scores, scores))
    loss, accuracy = cards.state(store.trace(run.id))["arms"][0]["rows"]
    assert (accuracy["name"], accuracy["value"]) == ("Test accuracy, 2 of 3 seeds", "62.5%")
    assert "mean over 2 of 3 seeds: the others have none" in accuracy["help"]
    assert loss["name"] == "Mini-batch loss" and loss["help"].endswith("over 3 seeds.")


def test_what_came_of_a_run_is_told_of_every_arm(trace, tmp_path):
    told = cards.outcome(trace)
    assert told.startswith("Test accuracy · plain: ") and told.count("; ") == 2
    for arm, kind in enumerate(("none", "moving", "none")):
        accuracy = trace.scores(arm, "test", kind)[2][-1].mean()
        assert f"{ARMS[arm].label}: {100 * accuracy:.1f}%" in told
    store = RunStore(tmp_path)
    wild = Arm(label="wild", changes={"learning_rate": 100.0, "init_gain": 50.0, "activation": "linear"})
    values = Experiment(settings=SMALL.model_copy(update={"data": "diabetes", "steps": 20}), arms=(ARMS[0], wild))
    run = store.create(values)
    assert cards.outcome(store.trace(run.id)) == "", "nothing is scored yet"
    execute(store, run.id, lambda: None)
    assert re.fullmatch(r"Test loss · plain: [\d.]+; wild: diverged", cards.outcome(store.trace(run.id)))


def test_a_run_without_steps_has_scores_and_says_why_it_has_no_verdict(tmp_path):
    store = RunStore(tmp_path)
    run = store.create(Experiment(settings=SMALL.model_copy(update={"steps": 0}), arms=ARMS[:1]))
    execute(store, run.id, lambda: None)
    (arm,) = cards.state(store.trace(run.id))["arms"]
    _, _, accuracies = store.trace(run.id).scores(0, "test", "none")
    assert [row["value"] for row in arm["rows"]] == ["–", f"{100 * accuracies[-1, 0]:.1f}%"]
    assert "has no steps" in arm["verdict_help"]


def test_a_label_is_literal_on_cards_and_in_notes_and_escaped_where_plotly_reads_html(trace):
    assert len(HTML) <= MAX_LABEL
    assert cards.state(trace)["arms"][1]["label"] == HTML
    for name, one in figures.FIGURES.items():
        for query in ({}, *({option.name: "1"} for option in one.options if "arm" in option.kind)):
            for over in ({"over": "arms"}, {"over": "layers"}) if name == "histograms" else ({},):
                figure = figures.draw(name, trace, query | over)
                assert HTML not in str(figure.to_plotly_json()["data"]) + str(figure.layout.annotations), name
                assert not set(re.findall("&[a-z]+;", str(figure.layout.meta))), name
    note = figures.draw("gradient_flow", trace, {}).layout.meta["note"]
    assert f"{HTML}: " in note


def test_a_score_that_is_not_the_newest_says_of_which_step_it_is(tmp_path):
    store = RunStore(tmp_path)
    run = store.create(Experiment(settings=SMALL.model_copy(update={"score_every": 4}), arms=ARMS[:1]))
    execute(store, run.id, lambda: None, steps=3)
    (arm,) = cards.state(store.trace(run.id))["arms"]
    assert arm["rows"][1]["name"] == "Test accuracy at step 0"


def test_a_score_of_the_newest_step_needs_no_step(trace):
    assert {arm["rows"][1]["name"] for arm in cards.state(trace)["arms"]} == {"Test accuracy"}


@pytest.mark.parametrize(("steps", "words"), [(1, "Done after 1 step"), (5000, "Done after 5,000 steps")])
def test_one_step_is_one_step(tmp_path, steps, words):
    store = RunStore(tmp_path)
    run = store.create(Experiment(settings=SMALL.model_copy(update={"steps": steps}), arms=ARMS[:1]))
    store.change(run.id, status="done")
    assert cards.state(store.trace(run.id))["words"] == words


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_a_card_of_a_network_that_diverged_says_when_and_what_to_do(tmp_path, seeds):
    store = RunStore(tmp_path)
    settings = Settings(depth=5, learning_rate=30.0, activation="relu", batch_size=64, steps=12)
    run = store.create(Experiment(settings=settings, arms=ARMS[:1], seeds=seeds))
    execute(store, run.id, lambda: None)
    diverged = store.run(run.id).diverged
    assert diverged, "the test's own network is to diverge"
    (arm,) = cards.state(store.trace(run.id))["arms"]
    assert arm["tone"] == "diverged" and f"at step {min(diverged.values())[0]}" in arm["verdict"]
    assert arm["verdict"].endswith("; lower the learning rate")
    assert ("both seeds" in arm["verdict"]) == (len(seeds) == 2)


def test_a_card_of_an_arm_that_is_lost_shows_its_newest_score_and_no_loss(tmp_path):
    """It showed the score of step 0, and beside no loss "mean of the last 10 mini-batches over 2 seeds"."""
    lost = Arm(label="lost", changes={"learning_rate": 3.0, "weight_decay": 1.0})  # a factor of -2 a step
    settings = {"depth": 3, "width": 4, "batch_size": 16, "steps": 160, "activation": "tanh", "score_every": 8}
    store = RunStore(tmp_path)
    run = store.create(Experiment(settings=Settings(data="wine", **settings), arms=(ARMS[0], lost), seeds=(0, 1)))
    execute(store, run.id, lambda: None)
    trace = store.trace(run.id)
    steps, _, accuracies = trace.scores(1, "test", "none")
    assert 12 <= steps[-1] < 150, "the test's own network is to diverge after a while"
    told, (loss, accuracy) = cards.card(trace, 1), cards.state(trace)["arms"][1]["rows"]
    there = np.isfinite(accuracies[-1])
    assert (told.scored, told.tested) == (steps[-1], there.sum())
    assert told.score == pytest.approx(accuracies[-1][there].mean())
    assert accuracy["name"].startswith(f"Test accuracy at step {steps[-1]}")
    assert (loss["name"], loss["value"]) == ("Mini-batch loss", "–")
    assert loss["help"] == "Training loss. All networks have diverged."


def test_the_loss_of_a_card_is_that_of_the_seeds_that_have_not_diverged(tmp_path, monkeypatch):
    """It was a mean over what the run's last steps had of them: of one that had just diverged, fewer mini-batches."""
    store = RunStore(tmp_path)
    run = store.create(Experiment(settings=SMALL.model_copy(update={"steps": 40}), arms=ARMS[:1], seeds=(0, 1)))
    execute(store, run.id, lambda: None)
    trace = store.trace(run.id)
    kept = trace.read("loss", 0).mean[-cards.LOSSES :, 0]
    monkeypatch.setattr(Trace, "diverged", {(0, 1): (34, 1)})
    (loss, _) = cards.state(trace)["arms"][0]["rows"]
    assert cards.card(trace, 0).loss == pytest.approx(kept.mean(), rel=1e-6)
    assert loss["name"] == "Mini-batch loss, 1 of 2 seeds"
    assert loss["help"].endswith("mean of the last 10 mini-batches over 1 of 2 seeds: the others have diverged.")


def test_a_card_counts_the_mini_batches_that_there_are(trace):
    """Of six it said "the last 20"."""
    helps = [arm["rows"][0]["help"] for arm in cards.state(trace)["arms"]]
    assert helps == ["Training loss, mean of the last 6 mini-batches."] * 3


def test_while_a_run_trains_the_loss_of_a_card_is_that_of_10_mini_batches_too(store):
    asked = Experiment(settings=SMALL.model_copy(update={"steps": 30}), arms=ARMS[:1])
    run, records = store.create(asked), list(train(asked))
    execute(store, run.id, lambda: None, steps=25)
    told = cards.card(store.trace(run.id), 0)
    assert told.recent == 10
    assert told.loss == pytest.approx(np.mean([r.value("loss", 0) for r in records[15:25]]), rel=1e-5)
    line = next(line for line in figures.draw("loss", store.trace(run.id), {}).data if line.name)
    assert told.loss == pytest.approx(line.y[-1], rel=1e-5), "where the line ends"


def test_the_loss_of_a_card_is_the_mean_of_20_mini_batches_where_some_are_kept_only_in_buckets(store, monkeypatch):
    """Of 4,800 layers the summaries fill 8 MB: of the newest steps some are left only as means of several."""
    monkeypatch.setattr(cards, "LOSSES", 20)
    arms = tuple(Arm(label=f"{i}", changes={"learning_rate": 0.1 + i / 100}) for i in range(6))
    asked = Settings(data="wine", depth=100, width=4, steps=20_000, budget_mb=8, score_every=20_000)
    experiment = Experiment(settings=asked, arms=arms, seeds=tuple(range(8)))
    run, seen, in_buckets = store.create(experiment), [], 0
    with store.writer(run.id) as writer:
        for record in written(experiment, range(1000), lambda t: {"steps": np.full(2 * 48, t, np.float32)}):
            writer.keep(record)
            if record.step > 600 and record.step % 49 == 0:
                writer.commit()
                trace = store.trace(run.id)
                in_buckets += len(trace.read("loss", 0, start=record.step - 19).steps) < 20
                seen.append((record.step, cards.card(trace, 0)))
    assert in_buckets
    for t, told in seen:
        assert told.recent >= 20 and told.loss == pytest.approx(t - (told.recent - 1) / 2)


@pytest.mark.parametrize(
    ("rate", "words"), [(1234.5, "1,234 steps/s"), (12.3, "12 steps/s"), (2.25, "2.2 steps/s"), (0.2, "5 s/step")]
)
def test_a_slow_training_tells_the_seconds_of_a_step(rate, words):
    """It said 0 steps/s."""
    assert cards.speed(rate) == words


def test_no_device_is_told_before_one_is_chosen(store):
    run = store.create(Experiment(settings=SMALL, arms=ARMS[:1]))
    assert cards.state(store.trace(run.id))["facts"] == ["step 0 of 6"]
    execute(store, run.id, lambda: None)
    assert cards.state(store.trace(run.id))["facts"] == ["step 6 of 6", "CPU"]


def test_the_formula_of_every_activation_is_told():
    for activation in ACTIVATIONS.values():
        assert f"{activation.label} {activation.formula}" in about("activation").help


@pytest.mark.parametrize(
    "position, words",
    [(0, "Waiting; next in the queue"), (2, "Waiting; 2 ahead in the queue"), (None, "Starting")],
)
def test_a_run_that_waits_says_so_also_when_it_is_the_next(tmp_path, position, words):
    store = RunStore(tmp_path)
    run = store.create(Experiment(settings=SMALL, arms=ARMS[:1]))
    assert cards.state(store.trace(run.id), position)["words"] == words


def test_a_card_tells_the_mean_loss_and_the_test_accuracy(store):
    asked = Experiment(settings=SMALL.model_copy(update={"steps": 30}), arms=ARMS[:2], seeds=(0, 1))
    run, records = store.create(asked), list(train(asked))
    execute(store, run.id, lambda: None)
    trace = store.trace(run.id)
    for arm in range(2):
        told = cards.card(trace, arm)
        loss = [r.value("loss", arm, seed) for r in records[-1 - cards.LOSSES : -1] for seed in asked.seeds]
        assert told.loss == pytest.approx(np.mean(loss), rel=1e-5)
        used = "moving" if arm else "none"
        assert told.statistics == used
        networks = [[(n.arm, n.seed) for n in stack] for stack in asked.stacks]
        right = [
            score.accuracy[i]
            for score in records[-1].scores
            if (score.split, score.statistics) == ("test", used)
            for i, slot in enumerate(score.slots)
            if networks[score.stack][slot][0] == arm
        ]
        assert len(right) == len(asked.seeds)
        assert told.score == pytest.approx(np.mean(right), rel=1e-6)


def test_the_board_says_every_status_in_words(trace):
    for status, words in {
        "queued": "Waiting; 2 ahead in the queue",
        "running": "Training",
        "paused": "Paused after 8 steps",
        "done": "Done after 30 steps",
        "stopped": "Stopped after 8 steps",
        "diverged": "Diverged: every network diverged.",
        "failed": "Failed after 8 steps: killed",
        "interrupted": "Interrupted after 8 steps. Resume continues from the last snapshot",
    }.items():
        reason = {"diverged": "every network diverged.", "failed": "killed"}.get(status, "")
        asked = Experiment(settings=SMALL.model_copy(update={"steps": 30}), arms=ARMS)
        run = trace.run._replace(experiment=asked, status=status, step=7, reason=reason)
        assert cards.words(run, 2) == words
        if status in ("running", "paused", "done", "stopped"):
            of = len(run.experiment.networks)
            run = run._replace(diverged={(0, run.experiment.seeds[0]): (3, 1)})
            assert cards.words(run, 2) == f"{words}; 1 of {of} networks diverged"


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_one_of_two_networks_that_diverged_is_told_and_the_only_one_is_not_counted(store, monkeypatch, seeds):
    run = store.create(Experiment(settings=SMALL, arms=ARMS[:1], seeds=seeds))
    execute(store, run.id, lambda: None)
    monkeypatch.setattr(Trace, "diverged", {(0, 0): (3, 1)})
    told = cards.outcome(store.trace(run.id))
    assert told == "Test accuracy · plain: diverged" if len(seeds) == 1 else told.endswith("% (1 of 2 seeds diverged)")
    words = cards.words(store.run(run.id)._replace(diverged={(0, 0): (3, 1)}), None)
    assert words == "Done after 6 steps" + "; 1 of 2 networks diverged" * (len(seeds) == 2)


def test_a_regression_has_a_loss_in_no_unit_and_beside_a_classification_a_score(store):
    arms = (ARMS[0], Arm(label="values", changes={"data": "diabetes"}))
    run = store.create(Experiment(settings=SMALL, arms=arms))
    execute(store, run.id, lambda: None)
    trace = store.trace(run.id)
    kinds, values = (arm["rows"] for arm in cards.state(trace)["arms"])
    assert [row["name"] for row in kinds + values] == [
        "Mini-batch loss", "Test accuracy", "Mini-batch loss", "Test loss",
    ]  # fmt: skip
    loss, score = (float(row["value"]) for row in values)
    assert kinds[0]["value"].endswith(" nats") and "mean squared error" not in kinds[0]["help"]
    assert loss == pytest.approx(trace.read("loss", 1).mean.mean(), rel=5e-3)
    assert score == pytest.approx(trace.scores(1, "test", "none")[1][-1, 0], rel=5e-3)
    assert values[0]["help"].startswith("Training loss (mean squared error), mean of the last 6")
    assert cards.outcome(trace) == f"Test score · plain: {kinds[1]['value']}; values: {values[1]['value']}"


def test_a_fork_that_has_not_taken_a_step_yet_stands_where_it_was_forked(store):
    """It stood at step 0, and was interrupted before its first step."""
    child = store.fork(recorded(store).run.id, 0, 20, {"alpha": 0.5})
    assert child.made == 20 and cards.state(store.trace(child.id))["facts"][0] == "step 20 of 40"
    store.change(child.id, status="interrupted")
    assert cards.words(store.run(child.id), None).startswith("Interrupted after 20 steps.")
    again = store.again(child.id)
    assert again.made == 20
    execute(store, child.id, lambda: None)
    assert store.run(child.id).made == 40
