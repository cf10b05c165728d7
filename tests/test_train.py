"""Training as a whole: every data set, networks of two shapes, no steps, the last scores."""

import numpy as np
import pytest

from bnlab.data import DATASETS
from bnlab.experiment import Arm, Experiment, Settings
from bnlab.train import score_interval, train


def test_a_network_of_another_shape_trains_beside():
    arms = (Arm(label="deep", changes={"depth": 4}), Arm(label="wide", changes={"width": 20, "batch_size": "full"}))
    experiment = Experiment(settings=Settings(depth=2, width=8, steps=3, data="wine", batch_size=16), arms=arms)
    records = list(train(experiment))
    assert len(experiment.stacks) == 2
    assert records[0].value("grad_norm", 0).shape == (4,) and records[0].value("z_std", 1).shape == (2,)


def test_what_a_network_does_not_have_is_a_key_error():
    """Beside one that has it, and in the last record; these were other errors."""
    arms = (Arm(label="plain"), Arm(label="BN", changes={"norm": "batch"}))
    first, last = train(Experiment(settings=Settings(depth=2, width=8, steps=1, data="wine", batch_size=16), arms=arms))
    assert first.value("gamma", 1).shape == (2, 8)
    for record, quantity, arm in ((first, "gamma", 0), (last, "gamma", 1), (last, "loss", 0), (first, "loss", 2)):
        with pytest.raises(KeyError, match=f"'{quantity}' was not recorded for arm {arm} and seed 0"):
            record.value(quantity, arm)


def test_the_device_may_be_auto_and_one_that_is_not_there_is_a_sentence(monkeypatch):
    asked = Experiment(settings=Settings(depth=1, width=4, steps=1, data="wine", batch_size=16))
    assert np.isfinite(next(train(asked, device="auto")).value("loss"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match="device is cuda; this machine has no CUDA device that torch can use"):
        next(train(asked, device="cuda"))
    with pytest.raises(ValueError, match="device is cuda:0; this machine has no such CUDA device that torch can use"):
        next(train(asked, device="cuda:0"))
    for other in ("gpu", "cuda:", "cuda:x", "mps", "meta"):
        with pytest.raises(ValueError, match=f"device is {other}; allowed is auto, cpu, cuda, or one such as cuda:1."):
            next(train(asked, device=other))


def test_a_training_that_is_ended_at_its_first_row_scores_the_initial_networks():
    asked = Experiment(settings=Settings(depth=2, width=8, steps=5, data="wine", batch_size=16))
    records = train(asked, ahead=True)
    assert next(records).parts
    last = records.send(True)
    assert last.step == 0 and last.scores and not last.parts
    assert next(records, None) is None


def test_no_steps_still_scores_the_initial_networks():
    (record,) = train(Experiment(settings=Settings(steps=0, depth=2)))
    assert record.step == 0 and len(record.scores) == 2 * 7 and record.parts == ()


def test_the_last_scores_carry_the_number_of_steps():
    steps = [r.step for r in train(Experiment(settings=Settings(steps=11, depth=1, score_every=5))) if r.scores]
    assert steps == [0, 5, 10, 11]


@pytest.mark.parametrize("data", DATASETS)
def test_every_data_set_trains(data):
    records = list(train(Experiment(settings=Settings(data=data, depth=2, width=8, steps=2, batch_size=10))))
    assert np.isfinite(records[1].value("loss"))


@pytest.mark.parametrize(("steps", "every"), [(40, 4), (41, 5), (7, 1)])
def test_a_short_run_is_scored_ten_times(steps, every):
    assert score_interval(Experiment(settings=Settings(steps=steps))) == every


@pytest.mark.parametrize("vectors", [[], [0]])
def test_a_training_does_not_go_on_from_weights_of_some_of_its_networks(vectors):
    arms = (Arm(label="deep", changes={"depth": 4}), Arm(label="wide", changes={"width": 20}))
    experiment = Experiment(settings=Settings(depth=2, width=8, steps=3, data="wine", batch_size=16), arms=arms)
    whole = next(train(experiment)).snapshot()
    with pytest.raises(ValueError, match="shorter"):
        next(train(experiment, start=(1, [whole[i] for i in vectors])))
