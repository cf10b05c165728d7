"""What the server sends leaves at once."""

import asyncio
import socket
from asyncio import base_events

import pytest
from streamlit.web.server.starlette.starlette_server import _bind_socket

import app


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
