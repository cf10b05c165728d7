"""One example alone, and two: what each norm makes of them."""

import numpy as np
import pytest
from looked_at import recorded, shown

from bnlab import Settings
from bnlab.figures import style


def test_one_example_alone_is_shown_for_every_norm_and_training_alone_is_refused_with_the_way_out(store):
    arms = ({}, {"norm": "batch"}, {"norm": "layer"}, {"norm": "batch", "statistics": "moving"})
    trace = recorded(store, arms=arms, steps=5)
    drawn = shown(trace, "alone")
    training, inference_mode = (np.array(bar.x) for bar in drawn.data if bar.type == "bar")
    shown_in_legend = [one for one in drawn.data if one.showlegend is not False]
    assert [one.name for one in shown_in_legend] == ["training mode", "inference mode"]
    assert {one.fillcolor for one in shown_in_legend} == {style.GRAY}, "they stand for all arms"
    assert {one.legendgroup for one in drawn.data} == {"training mode", "inference mode"}
    assert (inference_mode < 1e-5).all() and training[1] > 0.01 and (training[[0, 2, 3]] < 1e-5).all()
    with pytest.raises(ValueError) as error:
        Settings(norm="batch", batch_size=1)
    refusal = "batch_size is 1; batch norm needs at least 2 examples to have a variance. Raise it or choose layer norm."
    assert refusal in str(error.value) and refusal in drawn.layout.meta["note"]
    assert len(shown(recorded(store, arms=({},), batch_size=1, steps=5), "alone").data) == 4


def test_two_examples_are_drawn_once_and_only_with_batch_norm(store):
    drawn = shown(recorded(store, batch_size=2, steps=5), "two_examples")
    assert [line.name for line in drawn.data] == ["arm 0, K = 2"]
    drawn = shown(recorded(store, statistics="moving", batch_size=1, steps=5), "two_examples")
    assert "takes nothing of the gradient away" in drawn.layout.annotations[0].text
