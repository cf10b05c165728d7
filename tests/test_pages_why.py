"""The page Why it works, driven without a browser: every view, every preset."""

import pytest
from lab_page import opened, recorded
from streamlit.testing.v1 import AppTest

from bnlab.address import from_query, to_query
from pages.parts import presets
from pages.parts.presets import WHY as PRESETS
from pages.parts.views import WHY


def page(run_id: str) -> AppTest:
    return opened("why.py", run_id)


def test_every_view_opens(lab):
    at = page(recorded(lab))
    for view in WHY:
        (chooser,) = (g for g in at.get("button_group") if g.key and g.key.startswith("view-"))
        assert list(chooser.options) == list(WHY)
        chooser.set_value(view).run()
        assert not at.exception


@pytest.mark.parametrize("name", presets.PRESETS)
def test_the_lab_offers_every_preset_and_says_what_it_asks(lab, name):
    at = opened("lab.py")
    question, experiment = presets.PRESETS[name]
    (menu,) = (one for one in at.get("menu_button") if one.key.startswith("presets-"))
    assert list(menu.options) == list(presets.PRESETS)
    menu.click(name).run()
    assert not at.exception and at.session_state.mine.asked()[0] == experiment
    assert [text.value for text in at.sidebar.caption if text.value == question] == [question]
    assert from_query(to_query(experiment)) == experiment, "it can be shared"


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_loaded_into_the_lab(lab, name):
    at = page(recorded(lab))
    at.button(key=f"preset-{name}").click().run()
    assert not at.exception
    draft = at.session_state.mine.draft
    assert draft["settings"] == PRESETS[name][1].settings.model_dump()
    assert [arm["label"] for arm in draft["arms"]] == [arm.label for arm in PRESETS[name][1].arms]
