"""The practitioner's population statistics."""

from looked_at import looked, slot


def test_the_shortcut_is_worse_the_smaller_the_mini_batch(inference_trace):
    off = {
        K: looked(inference_trace, "practice", 40, batch_size=K)["mean_off"][slot(inference_trace, 1)] for K in (4, 64)
    }
    assert off[4][2] > 2 * off[64][2]
    assert off[4][0] < 1e-5  # in the first layer the inputs are the same, and so are their pooled statistics
