"""What the tests of more than one file start from."""

import pytest
import torch

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
