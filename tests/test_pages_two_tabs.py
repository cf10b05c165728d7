"""What was deleted or resumed in another tab is a sentence in this one, and the page goes on."""

import pytest
from lab_page import address, button, chooser, drawn, errors, page
from lab_page import opened as another

from bnlab import opened
from bnlab.experiment import Experiment
from pages.parts import chooser as choosing

pytestmark = pytest.mark.usefixtures("lab")
GONE = "The run '{}' was deleted. Choose another run."


def test_a_run_that_was_deleted_meanwhile_is_a_sentence():
    shown, other = (opened.store().create(Experiment(), name=name) for name in ("one", "two"))
    at = page(("run", shown.id))
    opened.store().delete(other.id)
    drawn(chooser(at).set_value(other.id))
    assert GONE.format(other.name) in errors(at)
    assert address(at) == [("run", shown.id)]


@pytest.mark.parametrize("file", ["lab.py", "inference.py", "why.py"])
def test_a_page_whose_run_is_deleted_in_another_tab_goes_on_to_the_example_and_says_so(file, monkeypatch):
    run = opened.store().create(Experiment(), name="one")
    at = another(file, run.id)
    opened.store().delete(run.id)
    assert GONE.format(run.name) in errors(drawn(at)) and chooser(at).value == opened.example_run().id
    assert not errors(drawn(at)), "once"
    run = opened.store().create(Experiment(), name="two")
    drawn(chooser(drawn(at)).set_value(run.id))
    monkeypatch.setattr(choosing, "show", deleting(choosing.show))
    assert GONE.format(run.name) in errors(drawn(at)), "deleted before the views are drawn, as they are alone"
    assert chooser(at).value == opened.example_run().id


def deleting(chooser):
    """The list of runs; once it is drawn the run shown is gone."""

    def drawn_then_deleted(me, run, **more):
        chooser(me, run, **more)
        if not choosing.is_example(run):
            opened.store().delete(run.id)

    return drawn_then_deleted


@pytest.mark.parametrize("file", ["lab.py", "inference.py", "why.py", "runs.py"])
def test_a_new_name_for_a_run_that_was_deleted_in_another_tab_is_answered_with_a_sentence(file):
    run = opened.store().create(Experiment(), name="one")
    at = another(file, run.id)
    opened.store().delete(run.id)
    drawn(at.text_input(key=f"name-{run.id}").set_value("other"))
    assert GONE.format(run.name) in errors(at) and not opened.store().runs()


def test_a_run_is_deleted_in_two_tabs_and_the_second_says_that_it_is_gone():
    run = opened.store().create(Experiment(), name="one")
    opened.store().change(run.id, status="stopped")
    at, other = another("runs.py", run.id), another("runs.py", run.id)
    assert not errors(drawn(button(at, f"delete-{run.id}").click()))
    assert GONE.format(run.name) in errors(drawn(button(other, f"delete-{run.id}").click()))
    assert not address(other)


def test_a_run_that_is_resumed_in_another_tab_is_not_deleted():
    run = opened.store().create(Experiment(), name="one")
    opened.store().change(run.id, status="stopped")
    at, other = another("runs.py", run.id), page(("run", run.id))
    drawn(button(other, "resume").click())
    drawn(button(at, f"delete-{run.id}").click())
    assert errors(at) == "Stop the run first."
    assert opened.store().run(run.id).status == "queued" and address(at) == [("run", run.id)]
    drawn(button(other, "stop").click())
    drawn(button(at, f"delete-{run.id}").click())
    assert not errors(at) and not opened.store().runs()


def test_beside_a_run_that_was_deleted_in_another_tab_another_is_chosen_all_the_same():
    shown, other = (opened.store().create(Experiment(), name=name) for name in ("one", "two"))
    at = page(("run", shown.id))
    opened.store().delete(shown.id)
    drawn(chooser(at).set_value(other.id))
    assert not errors(at) and address(at) == [("run", other.id)]


def test_train_beside_a_run_that_was_deleted_in_another_tab_says_nothing_of_it():
    shown = opened.store().create(Experiment(), name="one")
    at = page(("run", shown.id))
    opened.store().delete(shown.id)
    drawn(button(at, "train").click())
    (run,) = opened.store().runs()
    assert not errors(at) and address(at) == [("run", run.id)]
