"""By which names the server answers: this machine's, and those that a classroom is given; a page elsewhere has none."""

import importlib
import urllib.error
import urllib.request

import pytest

import app


@pytest.fixture
def told(monkeypatch):
    """The names by which the server answers with BNLAB_HOSTS."""
    yield lambda names: (monkeypatch.setenv("BNLAB_HOSTS", names), importlib.reload(app))[1].HOSTS
    monkeypatch.undo()
    importlib.reload(app)


def test_a_classroom_has_names_of_its_own_and_the_teacher_still_those_of_this_machine(told):
    """Streamlit names http://localhost:8501 there, which was answered by "Invalid host header"."""
    assert set(told("room,192.168.0.7")) == {"room", "192.168.0.7", "localhost", "127.0.0.1"}
    assert set(told("")) == {"localhost", "127.0.0.1"}


@pytest.mark.xdist_group("browser")  # whose server it is
@pytest.mark.parametrize("path", ["/", "/api/runs/none", "/_stcore/health"])
def test_by_another_name_the_server_says_nothing(server, path):
    asked = urllib.request.Request(server + path, headers={"Host": "elsewhere.example"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(asked, timeout=60)
    with refused.value as answer:
        assert (answer.code, answer.read()) == (400, b"Invalid host header")
