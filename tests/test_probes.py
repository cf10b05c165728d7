"""Every probe: it changes nothing, sees the same again, and takes nothing from the others where a network is lost."""

import numpy as np
import pytest
import torch
from twins import Twin, group

from bnlab import Arm, Experiment, Settings, lineage, train
from bnlab.probes import PROBES, Copies, checked, schedule
from bnlab.probes.weights import inner, spread

BN = {"norm": "batch"}


@pytest.mark.parametrize("name", [name for name, probe in PROBES.items() if not probe.back])
def test_a_fresh_copy_and_a_used_one_see_the_same_noise(name):
    noisy = BN | {"noise_shift": 0.5, "noise_scale": 0.25}
    arms = (Arm(label="noisy", changes=noisy), Arm(label="after", changes=noisy | {"placement": "after"}))
    experiment = Experiment(settings=Settings(depth=3, width=8, batch_size=16, data="wine"), arms=arms)
    vectors = next(r for r in train(experiment) if r.step == 5).snapshot()
    options = checked(name, {}) | ({"points": 5} if "points" in PROBES[name].options else {})
    used = Copies(experiment)
    used.look("gradient_line", {}, 2, vectors)
    (fresh,), (again,) = (copies.look(name, options, 5, vectors) for copies in (Copies(experiment), used))
    for key, values in fresh.items():
        np.testing.assert_array_equal(values, again[key], err_msg=key)
        assert np.isfinite(values).any(), key


@pytest.mark.parametrize("arm", [0, 1], ids=["without", "with batch norm"])
@pytest.mark.parametrize("name", PROBES)
def test_a_network_that_diverged_takes_nothing_from_the_others(why_trace, name, arm):
    experiment, step = why_trace.experiment, why_trace.snapshots()[2]
    copies, options = (
        Copies(experiment),
        checked(name, {}) | ({"points": 5} if "points" in PROBES[name].options else {}),
    )
    stack, place = copies.groups[0].stack, experiment.stacks[0].index((arm, 0))
    (finite,) = why_trace.snapshot(step)
    stack.restore(step, finite)
    stack.p["weight"].select(-3, place).fill_(torch.nan)
    stack.p["readout"][place, 0, 0] = torch.inf
    lost = stack.snapshot()

    def looked(now):
        back = lineage.seen(why_trace) if PROBES[name].back else ()
        back = [s._replace(vector=lambda t, s=s: now if t == step else s.vector(t)) for s in back]
        return copies.look(name, options, step, [now], back)[0]

    right, found = looked(finite), looked(lost)
    others = [slot for slot in range(stack.S) if slot != place]
    for q, values in found.items():
        np.testing.assert_array_equal(values[others], right[q][others], err_msg=q)
        assert values.dtype.kind != "f" or (np.isnan(values[place]).all() and np.isfinite(right[q][others]).any()), q


def test_inner_products_and_moves_go_network_by_network():
    made = group()
    stack = made.stack
    with torch.no_grad():
        values = torch.arange(1.0, stack.S + 1, dtype=torch.float64)
        each = inner(stack, stack.parameters, stack.parameters)
        np.testing.assert_allclose(
            inner(stack, spread(stack, values) * stack.parameters, stack.parameters), values * each
        )
        for slot in range(stack.S):
            twin = Twin(stack, slot)
            assert float(each[slot]) == pytest.approx(sum(float(p.detach().square().sum()) for p in twin.parameters()))


@pytest.mark.parametrize("name", PROBES)
def test_looking_changes_nothing(why_trace, name):
    """A training that is looked at with a probe at every snapshot keeps every bit."""
    experiment = why_trace.experiment
    copies, options = Copies(experiment), checked(name, {})
    if "points" in options:
        options["points"] = 5
    state = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    plain, looked_at = list(train(experiment)), []
    for record in train(experiment):
        if record.weights and record.step in (0, 20, 60):
            seen = lineage.seen(why_trace) if PROBES[name].back else ()
            found = copies.look(name, options, record.step, record.weights, seen)
            assert all(len(values) == len(experiment.stacks[0]) for values in found[0].values())
            assert not any(np.isinf(values).any() for values in found[0].values() if values.dtype.kind == "f")
        looked_at.append(record)
    np.testing.assert_array_equal(plain[-1].snapshot()[0], looked_at[-1].snapshot()[0])
    assert torch.equal(torch.random.get_rng_state(), state[0])
    assert (np.random.get_state()[1] == state[1]).all()


@pytest.mark.parametrize("name", PROBES)
def test_the_same_look_sees_the_same(why_trace, name):
    options = checked(name, {}) | ({"points": 5} if "points" in PROBES[name].options else {})
    step = why_trace.snapshots()[2]
    seen = lineage.seen(why_trace) if PROBES[name].back else ()
    first, again = (
        Copies(why_trace.experiment).look(name, options, step, why_trace.snapshot(step), seen)[0] for _ in range(2)
    )
    for key, values in first.items():
        np.testing.assert_array_equal(values, again[key])


def test_live_looks_take_their_share_and_are_kept(why_trace):
    settings = Settings(steps=50000)
    chosen = schedule(Experiment(settings=settings))
    assert set(chosen) == {name for name, probe in PROBES.items() if probe.live}
    assert sum(PROBES[name].cost / every for name, every in chosen.items()) <= 0.15 + 1e-9
    small = schedule(Experiment(settings=Settings(steps=50000, batch_size=16)))
    # a step of 16 examples costs an eighth of one of 128, a singular value the same
    assert small["jacobian"] > 6 * chosen["jacobian"]
    narrow, wide = (
        schedule(Experiment(settings=Settings(steps=50000, width=width, batch_size=16, score_every=10)))
        for width in (64, 512)
    )
    assert wide["gradient_line"] > 1.5 * narrow["gradient_line"]  # the weights of 512 units beside 16 examples
    steps, found = why_trace.looks("shift", 1)
    assert steps[0] == 0 and len(steps) >= 2 and found["drift"].shape == (len(steps), 2, 3)
    assert why_trace.look("shift", 0, int(steps[0]))["cosine"].shape == (2, 2)
    assert why_trace.look("shift", 0, 7) is None


def test_every_probe_says_what_it_is_and_refuses_in_a_sentence():
    for name, probe in PROBES.items():
        assert probe.label and probe.help.endswith("."), name
        assert checked(name, {}) == {option: asked.default for option, asked in probe.options.items()}
    with pytest.raises(ValueError, match=r"alpha is 1.5; allowed is 0 to 1\."):
        checked("inference", {"alpha": 1.5})
    with pytest.raises(ValueError, match=r"beta is not an option of inference; known are alpha\."):
        checked("inference", {"beta": 1})


def test_a_probe_is_live_where_one_interval_fits_into_the_run():
    asked = lambda steps: schedule(Experiment(settings=Settings(steps=steps, score_every=1)))  # noqa: E731
    rarest, every = max(asked(50_000).items(), key=lambda chosen: chosen[1])
    assert asked(every)[rarest] == every
    assert rarest not in asked(every - 1)
