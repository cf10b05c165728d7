"""Streamlit's own files from memory, packed once; Streamlit reads each anew for every visitor and sends it unpacked.

A page of Streamlit is some hundred files: when a class opens it at once, the server's one thread does little else.
"""

from __future__ import annotations

import gzip

import anyio
import anyio.to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

WORTH = 0.9  # of its bytes at most a file has packed, or it is kept as it is: fonts are packed already


class Files:
    """Answers from memory what `app` once said would never change; all else is left to it. Its addresses begin with
    `below`, if any: "/path"."""

    def __init__(self, app: ASGIApp, below: str = ""):
        self.app, self.below = app, below
        self.kept: dict[str, Response] = {}
        self.turn = anyio.Lock()  # one file at a time: thirty first visitors pack nothing twice

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not wanted(scope, self.below):
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        if path not in self.kept:
            async with self.turn:
                messages = [] if path in self.kept else await self.asked(scope, receive)
                if lasting(messages):
                    self.kept[path] = await anyio.to_thread.run_sync(packed, messages)
            if path not in self.kept:  # Streamlit's page, with which it answers any unknown address
                for message in messages:
                    await send(message)
                return
        await self.kept[path](scope, receive, send)

    async def asked(self, scope: Scope, receive: Receive) -> list[Message]:
        """What the app answers."""
        messages: list[Message] = []

        async def take(message: Message) -> None:
            messages.append(message)

        await self.app(scope, receive, take)
        return messages


def wanted(scope: Scope, below: str = "") -> bool:
    """Whether a whole file of Streamlit is asked for, by one who reads it packed."""
    if scope["type"] != "http" or scope["method"] != "GET" or not scope["path"].startswith(f"{below}/static/"):
        return False
    if "//" in scope["path"] or "/." in scope["path"]:  # other names of the same file, without end
        return False
    headers = Headers(scope=scope)
    partly = "range" in headers or "if-none-match" in headers
    return "gzip" in headers.get("accept-encoding", "") and not partly


def lasting(messages: list[Message]) -> bool:
    """Whether an answer is the same for everyone, for ever."""
    if not messages or messages[0]["status"] != 200:
        return False
    headers = Headers(raw=messages[0]["headers"])
    return "immutable" in headers.get("cache-control", "") and "set-cookie" not in headers


def packed(messages: list[Message]) -> Response:
    """The same answer from memory, packed where that makes it smaller."""
    whole = b"".join(message.get("body", b"") for message in messages[1:])
    content = gzip.compress(whole, compresslevel=6)
    headers = MutableHeaders(raw=list(messages[0]["headers"]))
    if len(content) > WORTH * len(whole):
        content = whole
    else:
        headers["content-encoding"] = "gzip"
        headers["etag"] = "W/" + headers["etag"]  # weak: parts of the file do not complete a part of what is packed
        del headers["accept-ranges"]
    headers.add_vary_header("accept-encoding")
    headers["content-length"] = str(len(content))
    response = Response(content)
    response.raw_headers = headers.raw
    return response
