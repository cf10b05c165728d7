"""What the tests of more than one file start from."""

import pytest
import torch
from looked_at import EXPERIMENT, trained

from bnlab.store import RunStore


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
    return trained(tmp_path_factory.mktemp("store"), EXPERIMENT.settings, EXPERIMENT.arms, EXPERIMENT.seeds)
