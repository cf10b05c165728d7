"""What the tests of more than one file start from."""

import pytest
import torch
from lab_browser import browser, page, server  # noqa: F401
from looked_at import INFERENCE, WHY, trained

from bnlab import opened
from bnlab.experiment import DEFAULT_ARMS, Arm
from bnlab.settings import Settings
from bnlab.store import RunStore
from bnlab.train import train


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in the same hook
def pytest_collection_modifyitems(items):
    """Browser tests follow each other in one process, also where the others run side by side: a machine has room for
    one lab and one Chromium."""
    for item in items:
        if item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.xdist_group("browser"))


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """As where the lab trains: small layers on several threads take longer."""
    torch.set_num_threads(1)


@pytest.fixture
def store(tmp_path):
    store = RunStore(tmp_path)
    yield store
    store.close()


@pytest.fixture(scope="module")
def why_run(tmp_path_factory):
    """A run of three norms, for one file alone, as looks are kept with it: its store and its id."""
    return trained(tmp_path_factory.mktemp("store"), WHY.settings, WHY.arms, WHY.seeds)


@pytest.fixture(scope="module")
def inference_run(tmp_path_factory):
    """The same of slow moving averages."""
    return trained(tmp_path_factory.mktemp("store"), INFERENCE.settings, INFERENCE.arms, INFERENCE.seeds)


@pytest.fixture(scope="session")
def inference_records():
    """What train() yields of it."""
    return list(train(INFERENCE))


@pytest.fixture(scope="session")
def why_trace(tmp_path_factory):
    """The trace of a run long enough for live looks and for a path, without batch norm, with it before and after."""
    settings = Settings(depth=3, width=6, steps=240, data="wine", batch_size=16, score_every=20)
    store, run_id = trained(tmp_path_factory.mktemp("store"), settings, DEFAULT_ARMS, (0, 1))
    return store.trace(run_id)


@pytest.fixture(scope="session")
def inference_trace(tmp_path_factory):
    """The trace of a run with batch norm before and after, without, with another alpha, and with layer norm."""
    arms = (
        Arm(label="none"),
        Arm(label="before", changes={"norm": "batch"}),
        Arm(label="after", changes={"norm": "batch", "placement": "after"}),
        Arm(label="slow", changes={"norm": "batch", "alpha": 0.99}),
        Arm(label="layer", changes={"norm": "layer"}),
    )
    settings = Settings(depth=3, width=8, steps=40, data="wine", batch_size=16, score_every=10, activation="tanh")
    store, run_id = trained(tmp_path_factory.mktemp("store"), settings, arms)
    return store.trace(run_id)


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """An empty store and a queue that executes nothing."""
    monkeypatch.setenv("BNLAB_STORE", str(tmp_path))
    monkeypatch.setenv("BNLAB_WORKERS", "0")
    opened.close()
    yield opened.store()
    opened.close()
