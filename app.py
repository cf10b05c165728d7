"""The front door: the server, with the routes the live charts pull from, its start and its stop."""

import os
import sys
from contextlib import asynccontextmanager, contextmanager

import streamlit as st
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.routing import Route

from bnlab import api, opened
from bnlab.connections import allow_many, answer_at_once
from bnlab.database import Error, in_terminal
from bnlab.files import Files


@contextmanager
def startable():
    """What is wrong at the start is a sentence in the terminal, and exit code 2, as on the command line."""
    try:
        yield
    except (ValueError, OSError, Error) as error:
        print("The lab cannot start:", in_terminal(error, opened.directory()), file=sys.stderr, flush=True)
        os._exit(2)  # whatever is raised, the server shows as a traceback


with startable():
    HOSTS = ["localhost", "127.0.0.1", *opened.hosts()]
BELOW = f"/{path}" if (path := st.get_option("server.baseUrlPath").strip("/")) else ""  # where another server shows it


@asynccontextmanager
async def workers(app):
    """Warm workers before the first visitor; end them with the server."""
    allow_many()
    answer_at_once()
    with startable():
        opened.jobs()
        opened.example()  # else no page could be drawn
    try:
        yield
    finally:
        opened.close()


app = st.App(
    "pages/navigation.py",
    routes=[Route(BELOW + route.path, route.endpoint, methods=["GET"]) for route in api.ROUTES],
    lifespan=workers,
    middleware=[
        Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS),  # first: a page elsewhere cannot read the lab
        Middleware(Files, below=BELOW),
    ],
)
