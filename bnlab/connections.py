"""The server's connections answer at once.

asyncio turns Nagle's algorithm off only where a socket names TCP, and Streamlit binds the one that its server listens
on without (https://github.com/Kludex/uvicorn/issues/3149). Of every answer but a connection's first the body then waits
until the browser has confirmed the head, 40 ms on Linux; a page is a hundred answers, a live chart four a second.
"""

from __future__ import annotations

from asyncio import base_events
from socket import AF_INET, AF_INET6, IPPROTO_TCP, SOCK_STREAM, TCP_NODELAY, socket


def answer_at_once() -> None:
    """Have every connection that asyncio takes from now on send at once, also those that wait to be taken."""
    base_events._set_nodelay = at_once


def at_once(sock: socket) -> None:
    """As asyncio's own, also where `sock` does not name its protocol: a stream over IP is TCP."""
    if sock.family in (AF_INET, AF_INET6) and sock.type == SOCK_STREAM:
        sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
