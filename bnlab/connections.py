"""The server's connections answer at once.

Streamlit binds the socket that its server listens on without naming TCP. asyncio, which would do it otherwise, then
leaves Nagle's algorithm on (https://github.com/Kludex/uvicorn/issues/3149): of every answer but a connection's first,
the body waits until the browser has confirmed the head, 40 ms on Linux. A page is a hundred answers, a live chart four
a second.
"""

from __future__ import annotations

import gc
import socket


def answer_at_once() -> None:
    """Have what this process sends over TCP leave at once, also to those who connect to a socket that listens now.

    Streamlit shows its socket to nobody, so it is looked for among all objects.
    """
    for thing in gc.get_objects():
        if type(thing) is socket.socket and thing.fileno() >= 0 and over_tcp(thing):
            thing.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def over_tcp(sock: socket.socket) -> bool:
    return sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM
