"""The page Why it works, driven without a browser: every view, every preset."""

import pytest
from lab_page import opened, recorded
from streamlit.testing.v1 import AppTest

from pages.parts.presets import PRESETS
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


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_loaded_into_the_lab(lab, name):
    at = page(recorded(lab))
    at.button(key=f"preset-{name}").click().run()
    assert not at.exception
    draft = at.session_state.mine.draft
    assert draft["settings"] == PRESETS[name][1].settings.model_dump()
    assert [arm["label"] for arm in draft["arms"]] == [arm.label for arm in PRESETS[name][1].arms]
