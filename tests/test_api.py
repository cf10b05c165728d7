"""The routes: one answer a version, built once however many ask, sentences for what is wrong, nothing else."""

import asyncio
import gzip
import json
import threading
from concurrent.futures import Future
from pathlib import Path

import httpx
import plotly
import pytest
from starlette.applications import Starlette

from bnlab import api, database, figures, looking, opened
from bnlab.executing import execute
from bnlab.experiment import Arm, Experiment
from bnlab.figures.looks import COMING
from bnlab.settings import Settings

ASKED = Experiment(
    settings=Settings(depth=3, width=8, batch_size=64, steps=30),
    arms=(Arm(label="plain"), Arm(label="BN", changes={"norm": "batch"})),
    seeds=(0, 1),
)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The id of a finished run of ASKED, the only one of the server's store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BNLAB_STORE", str(tmp_path_factory.mktemp("store")))
        patch.setenv("BNLAB_WORKERS", "0")
        opened.close()
        run = opened.store().create(ASKED, name="test")
        execute(opened.store(), run.id, lambda: None)
        yield run.id
        opened.close()


def together(*addresses: str, headers: dict | None = None, method: str = "GET") -> list[httpx.Response]:
    """What the routes answer to these requests, asked at once."""

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(Starlette(routes=api.ROUTES))
        async with httpx.AsyncClient(transport=transport, base_url="http://lab") as client:
            return await asyncio.gather(*(client.request(method, a, headers=headers) for a in addresses))

    return asyncio.run(ask())


def view() -> str:
    return next(iter(figures.FIGURES))


@pytest.mark.parametrize("name", figures.FIGURES)
def test_every_figure_is_served_small_and_not_twice(recorded, name):
    run = recorded
    (first,) = together(f"/api/runs/{run}/{name}")
    assert first.status_code == 200
    figure = first.json()
    assert figure["data"] or figure["layout"]["annotations"][0]["text"], "a picture, or a sentence that says why not"
    assert len(first.text) < 200_000
    (again,) = together(f"/api/runs/{run}/{name}?seen={first.headers['x-version']}")
    assert again.status_code == 204
    assert not again.content


def test_a_changed_run_is_answered_anew(recorded):
    run = recorded
    (first,) = together(f"/api/runs/{run}")
    opened.store().rename(run, "another name")
    (again,) = together(f"/api/runs/{run}?seen={first.headers['x-version']}")
    assert again.status_code in (200, 204), "204 while the summary is still believed"
    api.RUNS.tasks.clear()
    (again,) = together(f"/api/runs/{run}?seen={first.headers['x-version']}")
    assert again.status_code == 200
    assert again.headers["x-version"] != first.headers["x-version"]


def test_a_figure_is_built_once_for_thirty_watchers(recorded, monkeypatch):
    run = recorded
    built, real = [], figures.draw
    monkeypatch.setattr(figures, "draw", lambda *a: built.append(a) or real(*a))
    api.BODIES.tasks.clear()
    answers = together(*[f"/api/runs/{run}/{view()}"] * 30)
    assert {a.status_code for a in answers} == {200}
    assert len({a.content for a in answers}) == 1
    assert len(built) == 1


def test_another_option_and_another_version_are_other_figures(recorded):
    """Else who turns a control, or follows a training, would see what was drawn before."""
    run = recorded
    plain, smooth = together(*(f"/api/runs/{run}/loss{asked}" for asked in ("", "?smoothing=50")))
    assert plain.json() != smooth.json()
    young = opened.store().create(ASKED)

    async def before_and_after() -> list[httpx.Response]:
        transport = httpx.ASGITransport(Starlette(routes=api.ROUTES))
        async with httpx.AsyncClient(transport=transport, base_url="http://lab") as client:
            first = await client.get(f"/api/runs/{young.id}/loss")
            execute(opened.store(), young.id, lambda: None)
            api.RUNS.tasks.clear()
            return [first, await client.get(f"/api/runs/{young.id}/loss")]

    before, after = asyncio.run(before_and_after())
    opened.store().delete(young.id)
    assert len(after.json()["data"]) > len(before.json()["data"])


def test_a_slow_figure_holds_up_nobody(recorded, monkeypatch):
    run = recorded
    free, real, order = threading.Event(), figures.draw, []
    monkeypatch.setattr(figures, "draw", lambda *a: free.wait(30) and real(*a))
    api.BODIES.tasks.clear()

    async def both() -> None:
        transport = httpx.ASGITransport(Starlette(routes=api.ROUTES))
        async with httpx.AsyncClient(transport=transport, base_url="http://lab") as client:

            async def ask(address: str) -> None:
                assert (await client.get(address)).status_code == 200
                order.append(address)

            slow = asyncio.create_task(ask(f"/api/runs/{run}/{view()}"))
            await asyncio.sleep(0.1)
            await ask(f"/api/runs/{run}")
            free.set()
            await slow

    asyncio.run(both())
    assert order == [f"/api/runs/{run}", f"/api/runs/{run}/{view()}"]


@pytest.mark.parametrize(
    ("address", "status", "sentence"),
    [
        ("/api/runs/nothing", 404, "There is no run 'nothing' here."),
        ("/api/runs/nothing/loss", 404, "There is no run 'nothing' here."),
        ("/api/runs/RUN/nothing", 400, "nothing"),
        ("/api/runs/RUN/VIEW?colour=red", 400, "colour"),
        ("/api/runs/RUN/VIEW?x=" + 500 * "1", 400, "The query has more than 400 characters. Shorten it."),
        ("/api/data/nothing", 404, "There is no data set 'nothing'; known are digits, "),
        ("/api/data/wine?standardize=maybe", 400, "standardize is maybe; allowed is true or false."),
        ("/api/data/wine?colour=red", 400, "colour is not an option of this figure; known is standardize."),
        ("/api/data/wine?<b>=1", 400, "<b> is not an option"),
    ],
)
def test_what_is_wrong_is_a_sentence(recorded, address, status, sentence):
    (answer,) = together(address.replace("RUN", recorded).replace("VIEW", view()))
    assert answer.status_code == status
    assert sentence in answer.text
    assert "Traceback" not in answer.text
    assert answer.headers["content-type"].startswith("text/plain"), "whatever words of a visitor are in it"


def test_a_figure_that_fails_is_a_sentence_for_the_visitor_and_a_line_in_the_log(recorded, monkeypatch, caplog):
    def fail(*_: object) -> None:
        raise ValueError("cannot reshape array of size 0 into shape (0,newaxis)")

    monkeypatch.setattr(figures, "draw", fail)
    (answer,) = together(f"/api/runs/{recorded}/loss?smoothing=50")
    assert answer.status_code == 400
    assert answer.text == "This chart could not be drawn. Choose other options; the server's log says why."
    assert "cannot reshape" in caplog.text


@pytest.mark.parametrize(("length", "status"), [(400, 200), (401, 400)])
def test_a_query_of_400_characters_is_answered_and_a_longer_one_is_not(recorded, length, status):
    (answer,) = together(f"/api/runs/{recorded}?x=".ljust(len(f"/api/runs/{recorded}?") + length, "1"))
    assert answer.status_code == status


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_changed_through_the_routes(recorded, method):
    (answer,) = together(f"/api/runs/{recorded}", method=method)
    assert answer.status_code == 405


def test_packed_and_plain_are_the_same(recorded):
    run = recorded
    packed, plain = (
        together(f"/api/runs/{run}/{view()}", headers={"accept-encoding": e})[0] for e in ("gzip", "identity")
    )
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.json() == plain.json()


@pytest.mark.parametrize("name", ["digits", "breast_cancer", "diabetes", "spirals"])
def test_a_data_set_is_previewed_once(name):
    (first, scaled) = together(f"/api/data/{name}", f"/api/data/{name}?standardize=false")
    assert first.json()["data"] and first.content != scaled.content
    assert len(first.text) < 60_000
    (again,) = together(f"/api/data/{name}?seen={first.headers['x-version']}")
    assert (again.status_code, again.content) == (204, b"")


@pytest.mark.parametrize(
    "file",
    [
        Path(plotly.__file__).parent / "package_data" / "plotly.min.js",
        Path(api.__file__).parent / "plotly" / "plotly-cartesian.min.js",
    ],
    ids=lambda file: file.name,
)
@pytest.mark.parametrize("accepted", ["gzip", "identity"])
def test_both_builds_of_plotly_are_served_whole_and_kept_by_browsers(file, accepted):
    (answer,) = together(f"/api/{file.name}?v=1", headers={"accept-encoding": accepted})
    assert answer.content == file.read_bytes()
    assert answer.headers.get("content-encoding", "identity") == accepted
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["content-type"].startswith("text/javascript")


def test_other_files_of_plotly_are_not_served():
    assert {answer.status_code for answer in together("/api/LICENSE", "/api/plotly/plotly.min.js")} == {404}


def test_the_board_can_be_sent_before_the_first_step(recorded):
    run = opened.store().create(ASKED)
    (answer,) = together(f"/api/runs/{run.id}")
    told = json.loads(answer.text)
    assert told["step"] == -1
    assert [arm["rows"][0]["value"] for arm in told["arms"]] == ["–", "–"]
    opened.store().delete(run.id)


def test_a_class_that_waits_for_looks_holds_up_nobody(recorded, monkeypatch):
    """Each waiting figure had one of four threads to itself: another visitor's chart came after up to 10 seconds."""
    taken = Future()
    monkeypatch.setattr(opened.jobs().looker, "look", lambda *asked: taken)
    monkeypatch.setattr(api, "LOOKING", 600)
    waiting = [f"/api/runs/{recorded}/surface?step={step}" for step in range(12)]

    async def both() -> list[httpx.Response]:
        transport = httpx.ASGITransport(Starlette(routes=api.ROUTES))
        async with httpx.AsyncClient(transport=transport, base_url="http://lab") as client:
            slow = [asyncio.create_task(client.get(address)) for address in waiting]
            await asyncio.sleep(1)
            other = await asyncio.wait_for(client.get(f"/api/runs/{recorded}/{view()}?smoothing=50"), 120)
            assert other.status_code == 200 and not any(task.done() for task in slow)
            taken.set_result("")
            return await asyncio.gather(*slow)

    assert {answer.status_code for answer in asyncio.run(both())} == {200}


def test_a_look_that_is_kept_already_holds_up_no_other(recorded, monkeypatch):
    """Between its coming and the word of it a chart asks for another step: that is asked for, or it waited for ever."""
    store, looker, asked = opened.store(), opened.jobs().looker, []
    looking.look(store, recorded, "landscape", {}, 30, store.trace(recorded).snapshot(30))
    monkeypatch.setattr(looker, "looking_at", lambda run_id: [("landscape", 30, {"points": 17})])
    taken = Future()
    taken.set_result("")
    monkeypatch.setattr(
        looker, "look", lambda store, run_id, probe, options, step: asked.append((probe, step)) or taken
    )
    together(f"/api/runs/{recorded}/surface?step=0")
    assert asked == [("landscape", 0)]
    monkeypatch.setattr(looker, "looking_at", lambda run_id: [("landscape", 12, {"points": 17})])
    together(f"/api/runs/{recorded}/surface?step=0&look=surface")
    assert len(asked) == 1, "one look of a kind at a time"


def test_a_figure_whose_look_got_lost_asks_for_it_again(recorded, monkeypatch):
    """It said "Computing this chart. It takes a moment." until the server ended."""
    store, looker, asked = opened.store(), opened.jobs().looker, []
    address = f"/api/runs/{recorded}/surface?step=24"

    def look(of, run_id, probe, options, step):
        asked.append((probe, step))
        taken = Future()
        if len(asked) == 3:
            looking.look(of, run_id, probe, options, step, store.snapshot(run_id, step))
        taken.set_result(database.FULL if len(asked) == 2 else "")
        return taken

    monkeypatch.setattr(looker, "look", look)
    (lost,) = together(address)
    assert COMING in lost.text and lost.status_code == 200
    (full,) = together(f"{address}&seen={lost.headers['x-version']}")
    assert (full.status_code, full.text) == (503, database.FULL)
    (there,) = together(f"{address}&seen={lost.headers['x-version']}")
    assert there.status_code == 200 and there.json()["data"]
    assert asked == [("landscape", 24)] * 3
    api.RUNS.tasks.clear()
    (whole,) = together(address)
    (again,) = together(f"{address}&seen={whole.headers['x-version']}")
    assert again.status_code == 204 and len(asked) == 3


def test_gzip_of_a_figure_is_decided_once(recorded):
    run = recorded
    together(f"/api/runs/{run}/{view()}")
    assert all(gzip.decompress(task.result().content) for task in api.BODIES.tasks.values())


def test_a_run_that_moves_up_in_the_queue_is_told_anew(recorded):
    first, second = (opened.store().create(ASKED).id for _ in range(2))
    for run in (first, second):
        opened.jobs().start(run)
    (before,) = together(f"/api/runs/{second}")
    assert before.json()["words"] == "Waiting; 1 ahead in the queue"
    opened.jobs().stop(first)
    (after,) = together(f"/api/runs/{second}?seen={before.headers['x-version']}")
    assert after.json()["words"] == "Waiting; next in the queue"
    opened.jobs().stop(second)


def test_a_step_ahead_is_the_newest(recorded):
    newest, ahead = together(*(f"/api/runs/{recorded}/gradient_flow{step}" for step in ("", "?step=999999")))
    assert ahead.status_code == 200 and ahead.json() == newest.json()


def test_a_run_that_waits_is_told_while_the_queue_is_held_by_who_waits_for_the_disk(recorded):
    """These answers come from the server's one thread, which would wait there with every visitor."""
    run, jobs = opened.store().create(ASKED).id, opened.jobs()
    jobs.start(run)
    held, told = threading.Event(), threading.Event()

    def hold():
        with jobs.lock:
            held.set()
            waited_in_vain.append(not told.wait(20))

    waited_in_vain = []
    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    cards, again = together(f"/api/runs/{run}", f"/api/runs/{run}?seen=1")
    told.set()
    holder.join()
    assert waited_in_vain == [False]
    assert cards.json()["words"] == "Waiting; next in the queue" and again.status_code == 200
    jobs.stop(run)


def test_a_store_that_cannot_be_read_is_a_sentence(recorded, monkeypatch, tmp_path):
    broken = tmp_path / "broken"
    broken.write_bytes(b"no database at all" * 1000)
    monkeypatch.setattr(opened.store(), "path", broken)
    monkeypatch.setattr(opened.store(), "local", threading.local())
    for answer in together(f"/api/runs/{recorded}", f"/api/runs/{recorded}/{view()}"):
        assert answer.status_code == 503 and answer.text == database.UNUSABLE.format("file is not a database")
