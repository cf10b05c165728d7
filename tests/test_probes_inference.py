"""The looks at inference: against training with that alpha, torch in eval and train mode, and slower sums."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as some
from twins import Twin, every_kind

from bnlab import Arm, Experiment, Settings, lineage, train
from bnlab.mlp import Statistics
from bnlab.moving import ALPHAS
from bnlab.population import of_mini_batches, pooled, streamed
from bnlab.probes import PROBES, Copies, checked
from bnlab.probes.broken import MISTAKES
from bnlab.probes.single import passing
from bnlab.store import RunStore
from bnlab.train import Group
from bnlab.work import execute

BN = {"norm": "batch"}


def looked(trace, name, step, **options):
    vectors = trace.snapshot(step)
    return Copies(trace.experiment).look(name, checked(name, options), step, vectors, lineage.seen(trace))[0]


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    """A run with batch norm before and after, without, and with another alpha."""
    arms = (
        Arm(label="none"),
        Arm(label="before", changes=BN),
        Arm(label="after", changes=BN | {"placement": "after"}),
        Arm(label="slow", changes=BN | {"alpha": 0.99}),
        Arm(label="layer", changes={"norm": "layer"}),
    )
    settings = Settings(depth=3, width=8, steps=40, data="wine", batch_size=16, score_every=10, activation="tanh")
    store = RunStore(tmp_path_factory.mktemp("store"))
    run = store.create(Experiment(settings=settings, arms=arms))
    execute(store, run.id, lambda: None)
    return store.trace(run.id)


def slot(trace, arm):
    return trace.slots(arm, "steps")[1][0]


@pytest.mark.parametrize(("asked", "online"), [(0.9, 1), (0.99, 3)])
def test_inference_with_another_alpha_is_that_of_training_with_it(trace, asked, online):
    found = looked(trace, "inference", 40, alpha=asked)
    place = slot(trace, 1)
    steps, losses, accuracies = trace.scores(online, "test", "moving")
    np.testing.assert_array_equal(found["step"][place], steps)
    np.testing.assert_allclose(found["loss"][place], losses[:, 0], rtol=1e-4)
    np.testing.assert_allclose(found["accuracy"][place], accuracies[:, 0], atol=0.02)
    assert np.isnan(found["loss"][slot(trace, 0)]).all()


def test_the_curve_against_alpha_goes_through_the_recorded_loss(trace):
    found = looked(trace, "alphas", 40)
    recorded = trace.scores(2, "train", "moving")[1][-1, 0]
    at = ALPHAS.index(0.9)
    assert found["train_loss"][slot(trace, 2), at] == pytest.approx(recorded, rel=1e-4)
    one = looked(trace, "inference", 40, alpha=0.5)
    assert found["test_loss"][slot(trace, 2), ALPHAS.index(0.5)] == pytest.approx(one["loss"][slot(trace, 2), -1])


def test_statistics_of_some_steps_only_are_refused_and_the_other_mistakes_are_computed(trace):
    from bnlab.probes.inference import averages

    seen = lineage.seen(trace)[0]
    some = np.array([0, 1, 4, 20, 21, 39])
    few = seen._replace(steps=some, batch_mean=seen.batch_mean[some], batch_var=seen.batch_var[some])
    with pytest.raises(ValueError, match="only 6 of 40 steps of the unit statistics are kept in this run; averages of"):
        averages(few, 0.9, np.array([0, 40]))
    np.testing.assert_array_equal(averages(few, 0.9, np.array([2]))[0], averages(seen, 0.9, np.array([2]))[0])
    copies = Copies(trace.experiment)
    whole, part = (copies.look("broken", {}, 40, trace.snapshot(40), [s])[0]["loss"] for s in (seen, few))
    swapped = list(MISTAKES).index("alpha swapped")
    assert np.isnan(part[:, swapped]).all() and np.isfinite(whole[slot(trace, 1), swapped])
    whole[:, swapped] = np.nan
    np.testing.assert_array_equal(part, whole)


@given(some.lists(some.integers(1, 9), min_size=1, max_size=8), some.floats(-1e6, 1e6))
@hypothesis_settings(max_examples=50, deadline=None)
def test_pooling_parts_gives_the_moments_of_all(sizes, offset):
    rng = np.random.default_rng(len(sizes))
    x = torch.from_numpy(rng.standard_normal((1, sum(sizes), 3)) + offset)
    parts = [(p.shape[1], p.mean(1, keepdim=True), p.var(1, keepdim=True, correction=0)) for p in x.split(sizes, 1)]
    mean, var = pooled(parts)
    torch.testing.assert_close(mean, x.mean(1, keepdim=True), rtol=1e-12, atol=1e-12)
    centered = x - x[:, :1]
    torch.testing.assert_close(var, centered.var(1, keepdim=True, correction=0), rtol=1e-6, atol=1e-9)


def batch_norms(dtype):
    experiment = every_kind(depth=4, width=9, data="wine", batch_size=20, activation="elu", init="he")
    with torch.no_grad():
        group = Group(experiment, 0, "cpu", dtype)
        return group, [(slots, networks) for slots, networks, b in group.alike if b]


def in_numpy(stack, slot, x):
    """Population means and variances [L, d] of one network with batch norm, in float64."""
    s, inner, found = stack.settings[slot], slot - stack.normed.start, []
    h = {"relu": lambda a: np.maximum(a, 0), "tanh": np.tanh}[s.activation]
    for l, layer in enumerate(stack.layers):
        a = x @ layer.weight[slot].double().numpy() + layer.bias[slot].double().numpy()
        q = a if s.placement == "before" else h(a)
        found.append((q.mean(0), q.var(0)))
        gamma, beta = (stack.p[name][l, inner].double().numpy() for name in ("gamma", "beta"))
        y = gamma * (q - q.mean(0)) / np.sqrt(q.var(0) + float(stack.delta[slot])) + beta
        x = h(y) if s.placement == "before" else y
    return (np.stack(q) for q in zip(*found, strict=True))


@pytest.mark.parametrize("fits", [2**25, 1000])
@pytest.mark.parametrize(("data", "activation", "depth"), [("wine", "relu", 20), ("breast_cancer", "relu", 20),
                         ("digits", "tanh", 6)])  # fmt: skip
def test_population_statistics_are_those_of_float64(monkeypatch, fits, data, activation, depth):
    monkeypatch.setattr(sys.modules["bnlab.population"], "FITS", fits)
    settings = Settings(
        data=data, standardize=False, depth=depth, width=8, activation=activation, steps=10, norm="batch",
        batch_size=16, score_every=10,
    )  # fmt: skip
    experiment = Experiment(
        settings=settings, arms=(Arm(label="before"), Arm(label="after", changes={"placement": "after"}))
    )
    *_, last = train(experiment)
    group = Group(experiment, 0, "cpu", torch.float32)
    group.stack.restore(10, last.weights[0])
    for b, slot in enumerate(group.batch_slots):
        mean, var = in_numpy(group.stack, slot, group.splits["train"][0].double().numpy())
        np.testing.assert_allclose(last.population[0].var[:, b], var, rtol=1e-6, atol=1e-20)  # of a dead unit: nothing
        off = np.abs(last.population[0].mean[:, b] - mean)
        assert (off <= 1e-6 * np.maximum(np.abs(mean), np.sqrt(var)) + 1e-12).all()


def test_an_arms_population_is_the_same_in_any_company():
    arms = (Arm(label="no"), Arm(label="before", changes=BN), Arm(label="after", changes=BN | {"placement": "after"}))
    settings = Settings(data="wine", depth=3, width=9, steps=0)
    whole = next(iter(train(Experiment(settings=settings, arms=arms)))).population[0]
    for arm in arms[1:]:
        alone = next(iter(train(Experiment(settings=settings, arms=(arm,))))).population[0]
        assert any(
            np.array_equal(alone.mean[:, 0], whole.mean[:, b]) and np.array_equal(alone.var[:, 0], whole.var[:, b])
            for b in range(2)
        )


@pytest.mark.parametrize("chunk", [1, 13, 1000])
def test_streamed_population_statistics_in_float64_are_exact(chunk):
    group, kinds = batch_norms(torch.float64)
    for slots, networks in kinds:
        with torch.no_grad():
            x = group.splits["train"][0].expand(slots.stop - slots.start, -1, -1)
            _, whole = networks.forward(x)
            found = streamed(networks, x, chunk)
        for l in range(4):
            torch.testing.assert_close(found.mean[l], whole.mean[l], rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(found.var[l], whole.var[l], rtol=1e-9, atol=1e-12)


def test_the_practitioners_statistics_are_a_slow_loops():
    group, kinds = batch_norms(torch.float64)
    for slots, networks in kinds:
        with torch.no_grad():
            x = group.splits["train"][0].expand(slots.stop - slots.start, -1, -1)
            found = of_mini_batches(networks, x, 20)
            parts = x.tensor_split(x.shape[1] // 20, 1)
            used = [networks.forward(p)[1] for p in parts]
            for l in range(4):
                n = torch.tensor([p.shape[1] for p in parts], dtype=torch.float64).view(-1, 1, 1, 1)
                means, variances = (torch.stack([u[i][l] for u in used]) for i in range(2))
                mean = (n * means).sum(0) / n.sum()
                var = (n * (variances + means**2)).sum(0) / n.sum() - mean**2
                torch.testing.assert_close(found.mean[l], mean, rtol=1e-8, atol=1e-10)
                torch.testing.assert_close(found.var[l], var, rtol=1e-8, atol=1e-10)
    with torch.no_grad():
        whole = of_mini_batches(networks, x, x.shape[1])
        torch.testing.assert_close(whole.var[3], networks.forward(x)[1].var[3], rtol=1e-8, atol=1e-10)


def test_the_shortcut_is_worse_the_smaller_the_mini_batch(trace):
    off = {K: looked(trace, "practice", 40, batch_size=K)["mean_off"][slot(trace, 1)] for K in (4, 64)}
    assert off[4][2] > 2 * off[64][2]
    assert off[4][0] < 1e-5  # in the first layer the inputs are the same, and so are their pooled statistics


def test_scores_do_not_change_where_the_population_is_streamed(monkeypatch):
    experiment = Experiment(
        settings=Settings(depth=3, width=8, steps=2, data="wine"), arms=(Arm(label="bn", changes=BN),)
    )
    whole = next(iter(train(experiment)))
    monkeypatch.setattr(sys.modules["bnlab.population"], "FITS", 100)
    streamed_record = next(iter(train(experiment)))
    for a, b in zip(whole.scores, streamed_record.scores, strict=True):
        np.testing.assert_allclose(a.loss, b.loss, rtol=1e-6)
    np.testing.assert_allclose(whole.population[0].var, streamed_record.population[0].var, rtol=1e-6)


def test_each_mistake_is_what_torch_makes_of_it(trace):
    found = looked(trace, "broken", 40)
    copies = Copies(trace.experiment)
    copies.look("single", {}, 40, trace.snapshot(40))  # restores
    group = copies.groups[0]
    group.stack.restore(40, trace.snapshot(40)[0])
    arm, s = 1, trace.experiment.arm_settings[1]
    place, b = slot(trace, 1), slot(trace, 1) - group.stack.batch.start
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
    assert told("right") == pytest.approx(trace.scores(arm, "test", "moving")[1][-1, 0], rel=1e-5)
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
    assert found["unshifted_loss"][place] == pytest.approx(trace.scores(arm, "test", "batch")[1][-1, 0], rel=1e-5)
    assert told("alpha swapped") == pytest.approx(
        looked(trace, "inference", 40, alpha=0.1)["loss"][place, -1], rel=1e-5
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
    assert lineage.start_left(trace, 1, 20) == pytest.approx(0.8**10 * 0.5**10)
    assert lineage.start_left(trace, 0, 15) == pytest.approx(0.8**15)
    _, trace = broken(store, arms, 20, {"statistics": "moving"})
    assert lineage.start_left(trace, 1, 20) == pytest.approx(0.8**10)
    store.delete(store.origin(trace.run.id)[0])
    assert np.isnan(lineage.start_left(store.trace(trace.run.id), 1, 20))


def test_batch_norm_takes_a_shift_out_before_the_activation_and_not_after_it(tmp_path):
    for placement in ("before", "after"):
        arm = Arm(label="bn", changes=BN | {"placement": placement})
        found, _ = broken(RunStore(tmp_path / placement), (arm,), 20)
        apart = found["loss"][list(MISTAKES).index("shifted, batch")] / found["unshifted_loss"] - 1
        assert abs(apart) < 1e-4 if placement == "before" else abs(apart) > 1e-2


def test_an_outlier_reaches_another_example_only_through_batch_norm(trace):
    outlier = looked(trace, "broken", 40)["outlier"]
    assert outlier[slot(trace, 0)] == 0 and outlier[slot(trace, 4)] == 0
    assert outlier[slot(trace, 1)] > 1e-3 and outlier[slot(trace, 2)] > 1e-3


def test_alone_an_example_gets_what_it_gets_in_a_batch_and_two_leave_no_gradient(trace):
    found = looked(trace, "single", 40)
    assert (found["alone"] < 1e-5).all()
    for arm in (1, 2):
        place = slot(trace, arm)
        assert (found["passing"][place] > 0.5).all() and (found["passing"][place] <= 1).all()
        assert (found["passing_of_two"][place] < 0.1 * found["passing"][place]).all()
    assert np.isnan(found["passing"][slot(trace, 0)]).all()


@pytest.mark.parametrize("placement", ["before", "after"])
@pytest.mark.parametrize("K", [2, 9])
def test_what_passes_a_batch_norm_is_autograds(placement, K):
    settings = Settings(depth=3, width=8, data="wine", batch_size=K, activation="tanh", delta=1e-2)
    arm = Arm(label="bn", changes=BN | {"placement": placement})
    with torch.no_grad():
        group = Group(Experiment(settings=settings, arms=(arm,)), 0, "cpu", torch.float64)
        x, y = group.mini_batch(0)
        group.stack.gradient(x, y)
        shares = passing(group.stack)
    twin = Twin(group.stack, 0)
    kept = [None] * 3
    for l, norm in enumerate(twin.norm):

        def keep(_, inputs, out, l=l):
            inputs[0].retain_grad()
            out.retain_grad()
            kept[l] = (inputs[0], out)

        norm.register_forward_hook(keep)
    twin.loss(x[0], y[0]).backward()
    for l, (into, out) in enumerate(kept):
        sigma = (into.detach().var(0, correction=0) + 1e-2).sqrt()
        share = (into.grad * sigma).norm(dim=0) / out.grad.norm(dim=0)
        assert float(shares[l]) == pytest.approx(float(share.mean()), rel=1e-9)
        if K == 2:  # the closed form bounds it
            assert (share <= 1e-2 / sigma**2 + 1e-12).all()


def test_every_probe_says_what_it_is_and_refuses_in_a_sentence():
    for name, probe in PROBES.items():
        assert probe.label and probe.help.endswith("."), name
        assert checked(name, {}) == {option: asked.default for option, asked in probe.options.items()}
    with pytest.raises(ValueError, match=r"alpha is 1.5; allowed is 0 to 1\."):
        checked("inference", {"alpha": 1.5})
    with pytest.raises(ValueError, match=r"beta is not an option of inference; known are alpha\."):
        checked("inference", {"beta": 1})


def test_statistics_pass_unused_where_fewer_are_given():
    group, kinds = batch_norms(torch.float64)
    slots, networks = kinds[0]
    with torch.no_grad():
        x = group.splits["train"][0].expand(slots.stop - slots.start, -1, -1)
        _, whole = networks.forward(x)
        _, again = networks.forward(x, Statistics(whole.mean[:2], whole.var[:2]))
    torch.testing.assert_close(again.mean[3], whole.mean[3])
