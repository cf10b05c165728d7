"""What the server sends leaves at once."""

import socket

import pytest
from streamlit.web.server.starlette.starlette_server import _bind_socket

from bnlab.connections import answer_at_once


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_connection_to_the_socket_that_streamlit_binds_answers_at_once(address):
    try:
        listening = _bind_socket(address, 0, 5)
    except OSError:
        pytest.skip(f"this machine has no {address}")
    with listening:
        assert listening.proto != socket.IPPROTO_TCP, "asyncio sees to it now: connections.py can go"
        answer_at_once()
        with socket.create_connection(listening.getsockname()[:2]):
            listening.setblocking(True)
            accepted, _ = listening.accept()
            with accepted:
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_closed_sockets_and_those_without_connections_are_passed_over():
    closed, (one, other) = socket.socket(), socket.socketpair()
    closed.close()
    with one, other, socket.socket(type=socket.SOCK_DGRAM):
        answer_at_once()
