"""Each mistake is what torch makes of it, and only batch norm lets an outlier reach another example."""

import numpy as np
import pytest
import torch
from looked_at import looked, slot
from twins import Twin, group, twins

from bnlab import Arm, Experiment, Settings, lineage
from bnlab.executing import execute
from bnlab.probes import Copies
from bnlab.probes.broken import MISTAKES, averaged, change
from bnlab.store import RunStore

BN = {"norm": "batch"}


def test_each_mistake_is_what_torch_makes_of_it(inference_trace):
    found = looked(inference_trace, "broken", 40)
    copies = Copies(inference_trace.experiment)
    copies.look("single", {}, 40, inference_trace.snapshot(40))  # restores
    group = copies.groups[0]
    group.stack.restore(40, inference_trace.snapshot(40)[0])
    arm, s = 1, inference_trace.experiment.arm_settings[1]
    place, b = slot(inference_trace, 1), slot(inference_trace, 1) - group.stack.batch.start
    x, y = group.splits["test"]
    names = list(MISTAKES)

    def twin(mean=None, var=None):
        t = Twin(group.stack, place)
        for l, norm in enumerate(t.norm):
            norm.running_mean.copy_((group.stack.moving_mean if mean is None else mean)[l, b, 0])
            norm.running_var.copy_((group.stack.moving_var if var is None else var)[l, b, 0])
        return t.eval()

    def loss(model, x, y):
        with torch.no_grad():
            return float(model.loss(x, y))

    def told(name):
        return float(found["loss"][place, names.index(name)])

    K, start = group.stack.K, s.alpha**40
    gathered = start + (group.stack.moving_var - start) * K / (K - 1)
    assert told("right") == pytest.approx(loss(twin(), x, y), rel=1e-4)
    assert told("right") == pytest.approx(inference_trace.scores(arm, "test", "moving")[1][-1, 0], rel=1e-5)
    assert told("never updated") == pytest.approx(
        loss(twin(torch.zeros_like(group.stack.moving_mean), torch.ones_like(group.stack.moving_var)), x, y), rel=1e-4
    )
    assert told("unbiased") == pytest.approx(loss(twin(None, gathered), x, y), rel=1e-4)
    shifted = x + group.splits["train"][0].std(0, correction=0)
    assert told("shifted") == pytest.approx(loss(twin(), shifted, y), rel=1e-4)
    order = torch.argsort(y, stable=True)
    model = twin().train()
    for norm in model.norm:
        norm.momentum = 1 - s.alpha
    parts = list(zip(x[order].tensor_split(-(-len(x) // K)), y[order].tensor_split(-(-len(x) // K)), strict=True))
    in_training = sum(loss(model, p, q) * len(q) for p, q in parts) / len(y)
    assert told("train mode") == pytest.approx(in_training, rel=1e-4)

    def after(parts):
        model, mean, var = twin().train(), group.stack.moving_mean.clone(), group.stack.moving_var.clone()
        for l, norm in enumerate(model.norm):  # torch would blend the unbiased variance in

            def blend(_, inputs, l=l):
                for q, new in ((mean, inputs[0].mean(0)), (var, inputs[0].var(0, correction=0))):
                    q[l, b, 0] = s.alpha * q[l, b, 0] + (1 - s.alpha) * new

            norm.register_forward_pre_hook(blend)
        for p, q in parts:
            loss(model, p, q)
        return loss(twin(mean, var), x, y)

    assert told("polluted") == pytest.approx(after(parts), rel=1e-3)
    assert abs(told("polluted") - told("right")) > 1e-3
    x_train, y_train = group.splits["train"]
    order = torch.argsort(y_train, stable=True)[np.linspace(0, len(y_train) - 1, len(x)).round().astype(int)]
    as_many = zip(x_train[order].tensor_split(len(parts)), y_train[order].tensor_split(len(parts)), strict=True)
    assert float(found["control"][place]) == pytest.approx(after(as_many), rel=1e-3)
    assert found["unshifted_loss"][place] == pytest.approx(
        inference_trace.scores(arm, "test", "batch")[1][-1, 0], rel=1e-5
    )
    assert told("alpha swapped") == pytest.approx(
        looked(inference_trace, "inference", 40, alpha=0.1)["loss"][place, -1], rel=1e-5
    )


def broken(store, arms, step, fork=None, **settings):
    """What is seen of the first arm (of a fork: the changed one), and its trace."""
    asked = {"depth": 2, "width": 8, "data": "wine", "batch_size": 16, "score_every": 5, "steps": 20, "alpha": 0.8}
    experiment = Experiment(settings=Settings(**asked | settings), arms=arms)
    run = store.create(experiment)
    execute(store, run.id, lambda: None)
    if fork:
        run = store.fork(run.id, 0, 10, fork)
        execute(store, run.id, lambda: None)
    trace = store.trace(run.id)
    arm = 1 if fork else 0
    stack, (place, *_) = trace.slots(arm, "steps")
    seen = lineage.seen(trace)[stack]
    vector = [trace.snapshot(step)[stack]]
    copies = Copies(trace.experiment)
    copies.groups = copies.groups[stack : stack + 1]
    return {name: q[place] for name, q in copies.look("broken", {}, step, vector, [seen])[0].items()}, trace


def test_an_arm_that_trains_with_its_averages_couples_nothing_and_knows_no_training_mode(tmp_path):
    for fork in (None, {"statistics": "moving"}):
        arm = Arm(label="bn", changes=BN | ({} if fork else {"statistics": "moving"}))
        found, _ = broken(RunStore(tmp_path / str(bool(fork))), (arm,), 20, fork)
        told = dict(zip(MISTAKES, found["loss"], strict=True))
        assert found["outlier"] == 0
        assert told["train mode"] == pytest.approx(told["right"], rel=1e-6)
        assert told["polluted"] == told["right"] == found["control"]
        assert told["shifted, batch"] == pytest.approx(told["shifted"], rel=1e-6) != pytest.approx(told["right"])


@pytest.mark.parametrize(("alpha", "step"), [(0.8, 0), (1.0, 20)])
def test_of_a_variance_that_nothing_came_into_nothing_is_unbiased(tmp_path, alpha, step):
    found, _ = broken(RunStore(tmp_path), (Arm(label="bn", changes=BN),), step, alpha=alpha, batch_size=2)
    told = dict(zip(MISTAKES, found["loss"], strict=True))
    assert told["unbiased"] == told["right"]


def test_the_start_that_is_left_follows_the_alphas_of_a_fork(tmp_path):
    store, arms = RunStore(tmp_path), (Arm(label="bn", changes=BN),)
    _, trace = broken(store, arms, 20, {"alpha": 0.5})
    assert lineage.weights(trace, 1, 20)[0] == pytest.approx(0.8**10 * 0.5**10)
    assert lineage.weights(trace, 0, 15)[0] == pytest.approx(0.8**15)
    _, trace = broken(store, arms, 20, {"statistics": "moving"})
    assert lineage.weights(trace, 1, 20)[0] == pytest.approx(0.8**10)


@pytest.mark.parametrize("fork", [{"alpha": 0.5}, {"batch_size": 3}], ids=str)
def test_mistakes_in_averages_are_those_of_every_step_of_a_fork(tmp_path, fork):
    """Made anew from the rows by the plain recursion, with the alpha and the K of each step; before, with today's."""
    store = RunStore(tmp_path)
    found, trace = broken(store, (Arm(label="bn", changes=BN),), 15, fork)
    rows = [lineage.rows(trace, f"batch_{q}", 1, stop=15)[1][:, 0].astype(float) for q in ("mean", "var")]
    names, s, group = list(MISTAKES), trace.experiment.arm_settings[1], Copies(trace.experiment).groups[-1]
    place = trace.slots(1, "steps")[1][0]
    group.stack.restore(15, trace.snapshot(15)[-1])
    x, y = group.splits["test"]
    for name in ("alpha swapped", "unbiased"):
        averages = [np.zeros_like(rows[0][0]), np.ones_like(rows[0][0])]
        for t, new in enumerate(zip(*rows, strict=True)):
            alpha, K = (s.alpha, s.mini_batch) if t >= 10 else (0.8, 16)
            alpha, factor = (1 - alpha, 1) if name == "alpha swapped" else (alpha, K / (K - 1))
            averages = [alpha * m + (1 - alpha) * q * f for m, q, f in zip(averages, new, (1, factor), strict=True)]
        twin = Twin(group.stack, place).eval()
        for norm, mean, var in zip(twin.norm, *averages, strict=True):
            norm.running_mean.copy_(torch.from_numpy(mean))
            norm.running_var.copy_(torch.from_numpy(var))
        with torch.no_grad():
            assert found["loss"][names.index(name)] == pytest.approx(float(twin.loss(x, y)), rel=2e-5), name


def test_batch_norm_takes_a_shift_out_before_the_activation_and_not_after_it(tmp_path):
    for placement in ("before", "after"):
        arm = Arm(label="bn", changes=BN | {"placement": placement})
        found, _ = broken(RunStore(tmp_path / placement), (arm,), 20)
        apart = found["loss"][list(MISTAKES).index("shifted, batch")] / found["unshifted_loss"] - 1
        assert abs(apart) < 1e-4 if placement == "before" else abs(apart) > 1e-2


def test_an_outlier_reaches_another_example_only_through_batch_norm(inference_trace):
    outlier = looked(inference_trace, "broken", 40)["outlier"]
    assert outlier[slot(inference_trace, 0)] == 0 and outlier[slot(inference_trace, 4)] == 0
    assert outlier[slot(inference_trace, 1)] > 1e-3 and outlier[slot(inference_trace, 2)] > 1e-3


@pytest.mark.parametrize("data", ["wine", "diabetes"])
def test_what_an_outlier_changes_is_the_probability_or_the_output_of_the_others_by_torch(data):
    made = group(data=data)
    for (place, networks, _), (twin, x, _) in zip(made.one_by_one, twins(made), strict=True):
        other = x.clone()
        other[-1] *= 100
        with torch.no_grad():
            told = change(networks, x[None], None)
            before, after = twin(x), twin(other)
            if data == "wine":
                before, after = torch.softmax(before, 1), torch.softmax(after, 1)
        assert told == pytest.approx(float((after - before)[:-1].abs().max()), rel=1e-7), place


def test_of_an_infinite_statistic_there_is_no_average_and_no_warning():
    """Also where it weighs nothing: alpha = 1 of a network that diverges."""
    rows = np.array([1.0, np.inf, 3.0]).reshape(3, 1, 1, 1, 1)
    assert averaged(rows, np.array([0.0, 0.5, 0.0, 0.5]), 1.0, torch.zeros(1)).isnan().all()
    assert averaged(rows[[0, 2]], np.array([0.5, 0.25, 0.25]), 1.0, torch.zeros(1)).item() == 1.5
