"""The scores of whole splits are torch's, with every kind of statistics."""

import numpy as np
import pytest
import torch
from twins import Twin, every_kind, grouped

from bnlab import train
from bnlab.experiment import Arm, Experiment


def test_scores_are_torchs_in_train_and_eval_mode():
    asked = every_kind(depth=4, width=10, batch_size=100, activation="relu", init="he", alpha=0.8)
    arms = (Arm(label=arm.label, changes=arm.changes | {"delta": 10.0**-i}) for i, arm in enumerate(asked.arms))
    g = grouped(asked.model_copy(update={"arms": tuple(arms)}))
    with torch.no_grad():
        for t in range(10):
            g.step(t, False)
        scores = {
            (s.split, s.statistics, slot): (s.loss[i], s.accuracy[i])
            for s in g.scores()
            for i, slot in enumerate(s.slots)
        }
    for slot in range(g.stack.S):
        for split, (x, y) in g.splits.items():
            twin = Twin(g.stack, slot).train()
            told = {}
            if twin.settings.norm == "batch":
                parts = torch.tensor_split(torch.arange(len(x)), -(-len(x) // 100))
                told["batch"] = torch.cat([twin(x[part]) for part in parts])
                for norm in twin.norm:
                    norm.momentum = 1.0
                    norm.reset_running_stats()
                population(twin, g.splits["train"][0])
                told["population"] = twin.eval()(x)
                b = slot - g.stack.batch.start
                for l, norm in enumerate(twin.norm):
                    norm.running_mean, norm.running_var = g.stack.moving_mean[l, b, 0], g.stack.moving_var[l, b, 0]
                told["moving"] = twin(x)
            else:
                told["none"] = twin(x)
            for statistics, outputs in told.items():
                loss, accuracy = scores[split, statistics, slot]
                assert loss == pytest.approx(torch.nn.functional.cross_entropy(outputs, y).item(), rel=1e-9)
                assert accuracy == pytest.approx((outputs.argmax(1) == y).double().mean().item())
    assert len(scores) == 2 * (3 + 6)


def test_outputs_that_are_no_numbers_are_in_no_class():
    """torch names the first: the accuracy was that class's share, 0.44 beside a loss of NaN."""
    settings = {"data": "circles", "depth": 30, "width": 8, "batch_size": 20, "steps": 2, "activation": "relu"}
    arms = [{"label": n, "changes": {"norm": n, "init_gain": 100.0}} for n in ("none", "batch", "layer")]
    told, tables = [], []
    for record in train(Experiment.model_validate({"settings": settings | {"score_every": 1}, "arms": arms})):
        told += [[*s.loss, *s.accuracy] for s in record.scores]
        tables += [[record.value(q, arm).item() for q in ("loss", "accuracy")] for arm in range(3) if record.parts]
    for loss, accuracy in (np.transpose(told), np.transpose(tables)):
        assert 0 < np.isnan(loss).sum() < len(loss)
        np.testing.assert_array_equal(np.isnan(loss), np.isnan(accuracy))


def population(twin, x):
    """Set the running statistics of each layer from the whole training set, the layers below already in eval mode."""
    twin.eval()
    for norm in twin.norm:
        seen = []
        hook = norm.register_forward_pre_hook(lambda module, inputs, seen=seen: seen.append(inputs[0]))
        twin(x)
        hook.remove()
        norm.running_mean, norm.running_var = seen[0].mean(0).detach(), seen[0].var(0, correction=0).detach()
