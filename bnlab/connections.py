"""The server's connections: they answer at once, and there may be many.

asyncio turns Nagle's algorithm off only where a socket names TCP, and Streamlit binds the one that its server listens
on without (https://github.com/Kludex/uvicorn/issues/3149). Of every answer but a connection's first the body then waits
until the browser has confirmed the head, 40 ms on Linux; a page is a hundred answers, a live chart four a second.

A visitor takes about ten open files, and Streamlit keeps three for each of the last 128 who left or reloaded. A
terminal of macOS allows a process 256 in all, in which thirty visitors have no room: the server then answers nobody.
"""

from __future__ import annotations

from asyncio import base_events
from contextlib import suppress
from socket import AF_INET, AF_INET6, IPPROTO_TCP, SOCK_STREAM, TCP_NODELAY, socket

OPEN_FILES = 4096


def allow_many() -> None:
    """Let this process have OPEN_FILES files open at once, or as many as the system lets it."""
    with suppress(ImportError, OSError, ValueError):  # Windows has no such limit
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
        if soft != resource.RLIM_INFINITY and soft < most:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def answer_at_once() -> None:
    """Have every connection that asyncio takes from now on send at once, also those that wait to be taken."""
    base_events._set_nodelay = at_once


def at_once(sock: socket) -> None:
    """As asyncio's own, also where `sock` does not name its protocol: a stream over IP is TCP."""
    if sock.family in (AF_INET, AF_INET6) and sock.type == SOCK_STREAM:
        sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
