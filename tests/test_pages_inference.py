"""The page Inference, driven without a browser: every view, the conventions, and a fork that is asked for."""

import pytest
from lab_page import opened, recorded
from streamlit.testing.v1 import AppTest

from bnlab.executing import execute
from pages.parts.controls import END
from pages.parts.views import INFERENCE


def page(run_id: str = "") -> AppTest:
    return opened("inference.py", run_id)


def test_every_view_opens(lab):
    at = page(recorded(lab))
    (chooser,) = (group for group in at.get("button_group") if group.key and group.key.startswith("view-"))
    assert list(chooser.options) == list(INFERENCE)
    for view in INFERENCE:
        chooser.set_value(view).run()
        assert not at.exception
        (chooser,) = (group for group in at.get("button_group") if group.key and group.key.startswith("view-"))


def told(at):
    """Each library's line of code, and what is said below it."""
    words = [text.value for text in at.caption if "averages the" in text.value]
    assert {code.language for code in at.code} == {"plaintext"}, "Streamlit's colors of code are too pale on white"
    return dict(zip((code.value for code in at.code), words, strict=True))


def test_the_conventions_follow_alpha_and_K(lab):
    run_id = recorded(lab, alpha=0.95, delta=1e-3)
    at = page(run_id)
    alpha, K = (at.number_input(key=f"number-{name}-{run_id}") for name in ("alpha", "batch_size"))
    assert (alpha.value, K.value, K.max) == (0.95, 16, 142)  # the arm's own, and up to N
    assert alpha.proto.format == "%g"  # 0.999 is shown as it is used
    shown = told(at)
    torch = "torch.nn.BatchNorm1d(8, eps=0.001, momentum={})"
    words = (
        "**PyTorch** averages the unbiased (1/(K-1)) variance; its moving variance times (K-1)/K = {} equals the lab's."
    )
    assert shown[torch.format(0.05)] == words.format(0.9375)
    at.number_input(key=f"number-alpha-{run_id}").set_value(0.99).run()
    at.number_input(key=f"number-batch_size-{run_id}").set_value(2).run()
    assert not at.exception
    shown = told(at)
    assert shown[torch.format(0.01)] == words.format(0.5)
    (keras,) = (line for line in shown if line.startswith("keras"))
    assert "momentum=0.99" in keras
    assert shown[keras] == "**Keras** averages the biased (1/K) variance; its moving variance equals the lab's."
    (own,) = (line for line in shown if line.startswith("moving"))
    assert shown[own] == "**This lab** averages the biased (1/K) variance."


def test_a_fork_is_asked_for_and_shown(lab):
    run_id = recorded(lab)
    at = page(run_id)
    why = "Choose something that differs first."
    assert at.button(key="fork-train").disabled and why in [c.value for c in at.caption]
    (group,) = (g for g in at.get("button_group") + at.get("selectbox") if g.key == f"fork-statistics-{run_id}-0")
    group.set_value("moving").run()
    assert why not in [c.value for c in at.caption]
    at.button(key="fork-train").click().run()
    assert not at.exception
    fork = lab.runs()[0]
    assert fork.id != run_id and lab.origin(fork.id) == (run_id, 0, 20)
    assert fork.experiment.arm_settings[1].statistics == "moving"
    assert fork.status == "queued"
    assert any(button.key == f"train-{fork.id}" for button in at.button)  # the Lab, where it trains
    assert at.session_state.mine.run == fork.id


def test_a_fork_that_cannot_wait_is_not_kept(lab, monkeypatch):
    run_id = recorded(lab)
    at = page(run_id)
    (group,) = (g for g in at.get("button_group") + at.get("selectbox") if g.key == f"fork-statistics-{run_id}-0")
    group.set_value("moving").run()
    monkeypatch.setattr("bnlab.jobs.LONGEST_QUEUE", 0)
    at.button(key="fork-train").click().run()
    assert [e.value.replace("\\", "") for e in at.error] == [
        "0 runs are waiting already. Try again when some have ended."
    ]
    assert [run.id for run in lab.runs()] == [run_id] and at.session_state.mine.run == run_id


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("learning_rate", "abc", "Learning rate η is abc, which is not a number; allowed is above 0 and at most 100."),
        ("learning_rate", "1e999", "Learning rate η is 1e999; allowed is above 0 and at most 100."),
        ("batch_size", "1", "Mini-batch size K (examples) is 1; batch norm needs at least 2 examples"),
    ],
)
def test_a_fork_that_cannot_be_is_told_at_the_field_and_not_offered(lab, name, text, sentence):
    at = page(recorded(lab))
    for written, told in ((text, [sentence]), ("5", [])):
        (box,) = (box for box in at.selectbox if box.key and box.key.startswith(f"fork-{name}-"))
        box.options.append(written + END)
        box.set_value(written).run()
        assert not at.exception
        assert [e.value.replace("\\", "")[: len(sentence)] for e in at.error] == told
        assert at.button(key="fork-train").disabled == bool(told)
        assert ("Correct the fields above first." in [c.value for c in at.caption]) == bool(told)


def test_a_run_goes_on_frozen_from_its_last_step(lab):
    run_id = recorded(lab)
    at = page(run_id)
    at.select_slider(key=f"fork-step-{run_id}").set_value(40).run()
    at.number_input(key=f"fork-more-{run_id}-40").set_value(7).run()
    (group,) = (g for g in at.get("button_group") + at.get("selectbox") if g.key == f"fork-statistics-{run_id}-0")
    group.set_value("moving").run()
    at.button(key="fork-train").click().run()
    assert not at.exception
    fork = lab.runs()[0]
    assert lab.origin(fork.id) == (run_id, 0, 40) and fork.experiment.settings.steps == 47
    execute(lab, fork.id, lambda: None)
    assert [arm.label for arm in fork.experiment.arms] == ["bn", "bn: averages frozen"]
    assert lab.run(fork.id).status == "done"


def test_a_fork_of_a_stopped_run_is_offered_the_steps_that_it_made(lab):
    run_id = recorded(lab)
    proposed = {}
    for status in ("stopped", "interrupted"):
        lab.change(run_id, status=status, step=29)
        proposed[status] = page(run_id).number_input(key=f"fork-more-{run_id}-20").value
    assert proposed == {"stopped": 10, "interrupted": 20}


def test_an_arm_is_offered_only_what_can_change_it(lab):
    run_id = recorded(lab)
    at = page(run_id)
    at.selectbox(key=f"fork-arm-{run_id}").set_value(1).run()
    assert not at.exception
    keys = [widget.key for widget in at.selectbox if widget.key and widget.key.startswith("fork-")]
    keys += [group.key for group in at.get("button_group") if group.key and group.key.startswith("fork-")]
    assert sorted(keys) == sorted(
        [f"fork-arm-{run_id}"]
        + [f"fork-{n}-{run_id}-1" for n in ("batch_size", "learning_rate", "optimizer", "sampling", "weight_decay")]
    )


def test_the_example_cannot_be_forked(lab):
    at = page()
    assert any("example cannot be forked" in info.value for info in at.info)
