"""Streamlit's own files come from memory, byte for byte, asked for once; nothing else is touched or kept."""

import asyncio
import gzip
from pathlib import Path

import httpx
import pytest
import streamlit
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from streamlit.web.server.starlette.starlette_static_routes import create_streamlit_static_assets_routes

from bnlab.files import Files, wanted

STATIC = Path(streamlit.__file__).parent / "static"
SCRIPT = max((STATIC / "static" / "js").glob("*.js"), key=lambda file: file.stat().st_size)
FONT = next((STATIC / "static" / "media").glob("*.woff2"))
INDEX = (STATIC / "index.html").read_bytes()
PACKED = {"accept-encoding": "gzip, br"}


def address(file: Path) -> str:
    return f"/{file.relative_to(STATIC).as_posix()}"


class Counted:
    """Streamlit's own answers, and which were asked for."""

    def __init__(self):
        self.app = Starlette(routes=create_streamlit_static_assets_routes(None))
        self.paths: list[str] = []

    async def __call__(self, scope, receive, send):
        self.paths.append(scope["path"])
        await self.app(scope, receive, send)


@pytest.fixture
def streamlits():
    return Counted()


@pytest.fixture
def files(streamlits):
    return Files(streamlits)


def ask(app, *paths: str, method: str = "GET", **headers: str) -> list[httpx.Response]:
    """What the app answers to these requests, asked at once."""

    async def answers() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://lab") as client:
            asked = {"accept-encoding": "gzip, br"} | {k.replace("_", "-"): v for k, v in headers.items()}
            return await asyncio.gather(*(client.request(method, path, headers=asked) for path in paths))

    return asyncio.run(answers())


@pytest.mark.parametrize("accepted", ["gzip, deflate, br", "identity"])
def test_every_file_is_the_one_on_disk(files, accepted):
    there = [file for file in (STATIC / "static").rglob("*") if file.is_file()]
    assert len(there) > 50
    for turn in range(2):
        for file, answer in zip(there, ask(files, *map(address, there), accept_encoding=accepted), strict=True):
            assert answer.status_code == 200
            assert answer.content == file.read_bytes(), f"{file.name}, asked for the {turn + 1}. time"
    assert set(files.kept) == (set(map(address, there)) if "gzip" in accepted else set())


@pytest.mark.parametrize(("file", "encoding"), [(SCRIPT, "gzip"), (FONT, None)], ids=["script", "font"])
def test_what_comes_from_memory_says_what_streamlit_says(streamlits, files, file, encoding):
    (plain,) = ask(streamlits, address(file))
    for _ in range(2):
        (answer,) = ask(files, address(file))
        for name in ("content-type", "cache-control", "last-modified"):
            assert answer.headers[name] == plain.headers[name]
        assert answer.headers.get("content-encoding") == encoding
        assert answer.headers["vary"].lower() == "accept-encoding"
        assert int(answer.headers["content-length"]) == answer.num_bytes_downloaded
    smaller = answer.num_bytes_downloaded < 0.5 * file.stat().st_size
    assert smaller == (encoding == "gzip")


def test_streamlit_is_asked_once_for_thirty_visitors(streamlits, files):
    answers = ask(files, *[address(SCRIPT), address(FONT)] * 30)
    assert {answer.status_code for answer in answers} == {200}
    ask(files, address(SCRIPT))
    assert sorted(streamlits.paths) == sorted([address(SCRIPT), address(FONT)])


def test_an_unknown_address_gets_streamlits_page_and_is_not_kept(streamlits, files):
    unknown = [f"/static/js/{number}.js" for number in range(5)]
    for _ in range(2):
        for answer in ask(files, *unknown):
            assert answer.content == INDEX and answer.headers["cache-control"] == "no-cache"
    assert len(streamlits.paths) == 10 and not files.kept


@pytest.mark.parametrize("other", ["/static//js/{}", "/static/js///{}", "/static/./js/{}"])
def test_other_names_of_a_file_are_not_kept(files, other):
    """There is no end of them."""
    headers = [(b"accept-encoding", b"gzip")]
    assert not wanted({"type": "http", "method": "GET", "path": other.format(SCRIPT.name), "headers": headers})
    ask(files, other.format(SCRIPT.name))
    assert set(files.kept) <= {address(SCRIPT)}  # httpx itself sets one of them right


def test_a_part_of_a_file_is_a_part_of_the_file_on_disk(files):
    """Also after the whole came packed: then a browser is not led to add this part to packed bytes."""
    (whole,) = ask(files, address(SCRIPT))
    assert whole.headers["etag"].startswith("W/") and "accept-ranges" not in whole.headers
    (part,) = ask(files, address(SCRIPT), range="bytes=100-199")
    assert part.status_code == 206 and part.content == SCRIPT.read_bytes()[100:200]
    (resumed,) = ask(files, address(SCRIPT), range="bytes=100-199", if_range=whole.headers["etag"])
    assert resumed.status_code == 200 and resumed.content == SCRIPT.read_bytes()


def test_who_has_a_file_is_told_so(files):
    for _ in range(2):
        (whole,) = ask(files, address(SCRIPT))
        (known,) = ask(files, address(SCRIPT), if_none_match=whole.headers["etag"])
        assert known.status_code == 304 and not known.content


@pytest.mark.parametrize("method", ["HEAD", "POST"])
def test_other_methods_are_streamlits_own(streamlits, files, method):
    ask(files, address(SCRIPT))
    (answer,), (plain,) = (ask(app, address(SCRIPT), method=method) for app in (files, streamlits))
    assert (answer.status_code, answer.content) == (plain.status_code, plain.content)
    assert len(streamlits.paths) == 3


@pytest.mark.parametrize("path", ["/", "/why", "/favicon.png"])
def test_what_lies_elsewhere_is_asked_for_each_time(streamlits, files, path):
    for _ in range(2):
        ask(files, path)
    assert streamlits.paths == [path] * 2 and not files.kept


@pytest.mark.parametrize("header", [{"cache-control": "no-cache"}, {"set-cookie": "who=you"}])
def test_an_answer_for_one_visitor_is_for_one(header):
    for_ever = {"cache-control": "public, immutable"}

    async def answer(request):
        return PlainTextResponse(request.headers["who"], headers=for_ever | header)

    files = Files(Starlette(routes=[Route("/static/page", answer)]))
    assert [ask(files, "/static/page", who=who)[0].text for who in ("you", "me")] == ["you", "me"]


def test_what_is_no_request_passes_through():
    passed = []

    async def app(scope, receive, send):
        passed.append((scope, receive, send))

    scopes = [{"type": "lifespan"}, {"type": "websocket", "path": "/static/stream", "headers": []}]
    for scope in scopes:
        asyncio.run(Files(app)(scope, ask, gzip))
    assert passed == [(scope, ask, gzip) for scope in scopes]
