"""The pages, driven without a browser: opened at an address or a run, their controls by name, what they say."""

from pathlib import Path

from streamlit.testing.v1 import AppTest

from bnlab import Arm, Experiment, Settings
from bnlab.executing import execute
from bnlab.settings import SECTIONS
from pages.parts.controls import END

PAGES = Path(__file__).parents[1] / "pages"
KINDS = ("slider", "selectbox", "toggle", "multiselect", "text_input", "button", "button_group", "menu_button")


def page(*pairs: tuple[str, str], closed: bool = False) -> AppTest:
    """The Lab, opened at the address that says `pairs`, with every arm and section open unless `closed`."""
    at = AppTest.from_file(str(PAGES / "navigation.py"), default_timeout=60)
    for name in dict(pairs):
        at.query_params[name] = [value for other, value in pairs if other == name]
    drawn(at)
    return at if closed else drawn(unfolded(at))


def unfolded(at: AppTest, wide: bool = True) -> AppTest:
    """The page, with every arm and section of the sidebar open (or closed) at the next run."""
    me = at.session_state.mine
    for name in [f"arm-{arm['uid']}" for arm in me.draft["arms"]] + [f"section-{section}" for section in SECTIONS]:
        at.session_state[me.key(name)] = wide
    return at


def drawn(what) -> AppTest:
    """The page after a run of its script; `what` is the page, or a widget of it that was just set."""
    at = what.run()
    assert not at.exception
    return at


def widget(at: AppTest, name: str):
    """The widget whose key is `name` and an edition number."""
    (found,) = (w for kind in KINDS for w in at.get(kind) if w.key and w.key.rpartition("-")[0] == name)
    return found


def typed(at: AppTest, name: str, text: str) -> AppTest:
    """The page after `text` was typed into the control called `name`."""
    found = widget(at, name)
    found.options.append(text + END)  # AppTest can choose from a list but not type into it
    return drawn(found.set_value(text))


def button(at: AppTest, key: str):
    """The button with this key, or with it and the run that is shown."""
    (found,) = (b for b in at.button if b.key and key in (b.key, b.key.rpartition("-")[0]))
    return found


def chooser(at: AppTest):
    """The list of runs."""
    (found,) = (box for box in at.selectbox if box.key.startswith("run-"))
    return found


def address(at: AppTest) -> list[tuple[str, str]]:
    held = at.query_params
    return [(name, v) for name, vs in held.items() for v in ([vs] if isinstance(vs, str) else vs)]


def errors(at: AppTest) -> str:
    return "\n".join(error.value.replace("\\", "") for error in at.error)


def opened(file: str, run_id: str = "") -> AppTest:
    """Another page, by its file, which looks at a run."""
    at = AppTest.from_file(str(PAGES / "navigation.py"), default_timeout=60)
    if run_id:
        at.query_params["run"] = run_id
    at.run()
    return drawn(at.switch_page(file))


def recorded(store, **more) -> str:
    """The id of a small run with batch norm and without, trained to its end."""
    settings = Settings(depth=2, width=8, steps=40, data="wine", batch_size=16, score_every=10, **more)
    run = store.create(
        Experiment(settings=settings, arms=(Arm(label="bn", changes={"norm": "batch"}), Arm(label="no")))
    )
    execute(store, run.id, lambda: None)
    return run.id
