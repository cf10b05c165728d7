"""The front door: the server, with the routes the live charts pull from, its start and its stop."""

import os
from contextlib import asynccontextmanager

import streamlit as st
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from bnlab import api, opened
from bnlab.connections import answer_at_once
from bnlab.files import Files

HOSTS = ["localhost", "127.0.0.1", *filter(None, os.environ.get("BNLAB_HOSTS", "").split(","))]


@asynccontextmanager
async def workers(app):
    """Warm workers before the first visitor; end them with the server."""
    answer_at_once()
    opened.jobs()
    try:
        yield
    finally:
        opened.close()


app = st.App(
    "pages/navigation.py",
    routes=api.ROUTES,
    lifespan=workers,
    middleware=[
        Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS),  # first: a page elsewhere cannot read the lab
        Middleware(Files),
    ],
)
