"""What the server sends leaves at once, and there is room for a class."""

import asyncio
import os
import socket
from asyncio import base_events

import pytest
from streamlit.web.server.starlette.starlette_server import _bind_socket

import app
from bnlab.connections import allow_many


@pytest.fixture(autouse=True)
def asyncios_own(monkeypatch):
    monkeypatch.setattr(base_events, "_set_nodelay", base_events._set_nodelay)  # put back afterwards


async def first_connection(monkeypatch) -> int:
    """Whether a connection that waited while the server started sends at once."""
    monkeypatch.setattr(app.opened, "jobs", lambda: None)
    monkeypatch.setattr(app.opened, "close", lambda: None)
    answered = asyncio.get_running_loop().create_future()

    def take(_, writer):
        answered.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    listening = _bind_socket("127.0.0.1", 0, 5)
    with socket.create_connection(listening.getsockname()):
        async with app.workers(None), await asyncio.start_server(take, sock=listening):
            return await answered


def test_a_connection_to_the_socket_that_streamlit_binds_answers_at_once(monkeypatch):
    assert asyncio.run(first_connection(monkeypatch))


def test_asyncio_would_not_see_to_it():
    """Where this fails, connections.py can go."""
    with _bind_socket("127.0.0.1", 0, 5) as listening:
        assert listening.proto != socket.IPPROTO_TCP


async def files_left() -> int:
    """How many files, of 300, the server may open beside those it has."""
    opened = []
    try:
        async with app.workers(None):
            for _ in range(300):
                opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass
    finally:
        for number in opened:
            os.close(number)
    return len(opened)


def test_a_server_of_a_terminal_that_allows_256_open_files_has_room_for_a_class(monkeypatch):
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    monkeypatch.setattr(app.opened, "jobs", lambda: None)
    monkeypatch.setattr(app.opened, "close", lambda: None)
    _, hard = before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        assert asyncio.run(files_left()) == 300
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_limit_that_is_higher_stays(monkeypatch):
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    set_to = []
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: set_to.append(limits))
    for soft, hard in ((5000, 9000), (-1, -1), (1024, 1024), (4096, 4096)):
        monkeypatch.setattr(resource, "getrlimit", lambda which, found=(soft, hard): found)
        allow_many()
    assert set_to == []
    for limits, wanted in (((256, -1), (4096, -1)), ((256, 1000), (1000, 1000)), ((1024, 20000), (4096, 20000))):
        monkeypatch.setattr(resource, "getrlimit", lambda which, found=limits: found)
        allow_many()
        assert set_to.pop() == wanted
