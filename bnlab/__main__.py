"""The command line: python -m bnlab train | resume | export | probe | runs | work.

Exit code 0; 2 with one line on stderr for bad input; 1 where the training itself failed; 130 after Ctrl+C,
and 143 where export or probe were ended by SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from signal import SIG_IGN, SIGINT, SIGTERM
from signal import signal as on
from sqlite3 import DatabaseError
from typing import Any

from pydantic import ValidationError
from tqdm import tqdm

from . import executing, looking, work
from .console import Unheard, unread
from .database import FILE, Unkept, in_terminal
from .experiment import Experiment
from .export import looks, tables
from .probes import PROBES
from .problems import in_a_line, problems, series
from .run import Run, Taken, outbreaks
from .store import RunStore
from .train import device_for


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog}: {message}. See {self.prog} --help.\n")


def parser() -> Parser:
    whole = Parser(prog="python -m bnlab", description="Train deep networks with and without batch norm, and look.")
    commands = whole.add_subparsers(dest="command", required=True, metavar="command")

    def command(name: str, does: str) -> Callable:
        return commands.add_parser(name, help=does, description=f"{does[0].upper()}{does[1:]}.").add_argument

    add = command("train", "train every arm and seed of an experiment; the run stays in a directory")
    add("file", type=Path, metavar="FILE.json", help="the experiment file")
    add("--out", type=directory, required=True, metavar="DIR", help="where the run is kept")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="what trains; auto: CUDA where it is faster")
    add = command("resume", "go on with a run that was interrupted, paused or stopped, or has failed")
    add("directory", type=directory, metavar="DIR", help="where the run is kept")
    add("--run", metavar="ID", help="which run; default: the newest")
    add = command("export", "write a run's tables, one file each")
    add("directory", type=directory, metavar="DIR", help="where the run is kept")
    add("--to", choices=tuple(tables.FORMATS), required=True, help="the kind of files")
    add("--out", type=directory, required=True, metavar="DIR2", help="where the files go")
    add("--run", metavar="ID", help="which run; default: the newest")
    add = command("probe", "look at a run's networks at a step with the costly probes; print the numbers")
    add("directory", type=directory, metavar="DIR", help="where the run is kept")
    add("--step", type=int, required=True, metavar="T", help="the snapshot at T, or the last before it")
    add("--probe", choices=tuple(PROBES), metavar="NAME", help=f"one of {', '.join(PROBES)}; default: all")
    known = "; ".join(f"{', '.join(probe.options)} of {name}" for name, probe in PROBES.items() if probe.options)
    add("--set", type=option, action="append", default=[], metavar="OPTION=VALUE", help=f"{known}; repeatable")
    add("--out", type=directory, metavar="DIR2", help="also write the numbers there, one CSV file each")
    add("--run", metavar="ID", help="which run; default: the newest")
    add = command("runs", "list the runs of a directory, the newest first")
    add("directory", type=directory, metavar="DIR", help="where they are kept")
    add = command("work", "execute runs for a server, fed over a pipe (the server starts these itself)")
    add("directory", type=directory, metavar="DIR", help="where they are kept")
    return whole


def directory(text: str) -> Path:
    """A directory that is named: nothing would be the present one."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; name a directory")
    return Path(text)


def option(text: str) -> tuple[str, str]:
    """OPTION=VALUE in its two parts."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text[:40]} is not OPTION=VALUE, like layer=3")
    return name, value


def main() -> int:
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115  there is none where it was closed
    sys.stderr = Unheard(sys.stderr or open(os.devnull, "w"))  # noqa: SIM115  else all this would go to the tables
    sys.stdout.reconfigure(errors="replace")  # a console may have no × or η
    asked = parser().parse_args()
    try:
        code = COMMANDS[asked.command](asked)
        sys.stdout.flush()
        return code
    except (ValueError, KeyError, OSError, DatabaseError) as error:
        if unread(error):  # whoever read has seen enough, as `| head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        directory = asked.out if asked.command == "train" else asked.directory
        print("python -m bnlab:", in_terminal(error, directory), file=sys.stderr)
        return 2


def clear_up_in_the_end() -> None:
    """From here on something may be half written: Ctrl+C, and whoever ends the process, let it be removed. Not before
    torch is there: no exception may pass its loading."""
    for signal in (SIGINT, SIGTERM):
        on(signal, lambda number, _: sys.exit(128 + number))


def train(asked: argparse.Namespace) -> int:
    experiment = read(asked.file)
    device = device_for(experiment, asked.device)  # says at once where there is no such device
    clear_up_in_the_end()
    for sentence in experiment.alike:
        print(sentence, file=sys.stderr)
    store = RunStore(asked.out)
    return finish(store, store.create(experiment, device=device))


def resume(asked: argparse.Namespace) -> int:
    store = existing(asked.directory)
    run = chosen(store, asked.run)
    if run.status in ("done", "diverged"):
        raise ValueError(f"run {run.id} is {run.status}; nothing is left to train.")
    if run.alive:
        raise Taken(run.id)
    executing.chosen_device(run)  # says at once where there is no such device
    return finish(store, run)


def finish(store: RunStore, run: Run) -> int:
    """Train a run to its end with a progress bar. Ctrl+C interrupts it where it can be resumed."""
    wish: list[str] = []
    for signal in (SIGINT, SIGTERM):  # before torch, which takes a second to come
        on(signal, lambda *_: wish.append("interrupt"))
    import torch

    torch.set_num_threads(1)  # small layers on several threads cost 4 to 6 times the processor time
    steps = run.experiment.settings.steps
    with tqdm(total=steps, initial=run.newest or 0, unit=" steps", desc=run.id) as bar:

        def asked() -> str | None:
            bar.update(min(store.run(run.id).step + 1, steps) - bar.n)
            return next(iter(wish), None)

        try:
            executing.execute(store, run.id, asked)
        except Taken:  # the run is not ours to call failed
            raise
        except Exception as error:  # what was recorded stays
            reason = in_a_line(error)
            if not isinstance(error, (Unkept, executing.Unable)):  # a sentence already
                reason = f"{type(error).__name__}: {reason}"
            try:
                store.change(run.id, status="failed", reason=reason)
            except DatabaseError:  # a disk that stays full; the run is free again when it gives no sign
                bar.close()
                print("python -m bnlab:", reason, file=sys.stderr)
                return 1
        asked()
    run = store.run(run.id)
    print(f"{run.id}: {run.status}, {run.name}" + (f" ({run.reason})" if run.reason else ""))
    if run.diverged and len(run.experiment.networks) > 1:  # of a single one the reason says it
        print(diverged(run))
    return {"interrupted": 130, "failed": 1}.get(run.status, 0)


def diverged(run: Run) -> str:
    """Which arms diverged, each with where the first of its networks did, and of how many of its seeds."""
    arms, seeds, where = run.experiment.arms, len(run.experiment.seeds), outbreaks(run.diverged)
    lost = {arm: sum(of == arm for of, _ in run.diverged) for arm in where}
    some = {arm: f" ({n} of {seeds} seeds)" if n < seeds else "" for arm, n in lost.items()}
    told = [f"{arms[arm].label} at step {step:,} in {place}{some[arm]}" for arm, (step, place) in where.items()]
    return f"{len(where)} of {len(arms)} arm{'s' * (len(arms) > 1)} diverged: {series(told)}."


def export(asked: argparse.Namespace) -> int:
    clear_up_in_the_end()
    store = existing(asked.directory)
    run = chosen(store, asked.run)
    for path in tables.write(store.trace(run.id), asked.to, asked.out):
        print(path)
    return 0


def probe(asked: argparse.Namespace) -> int:
    """What is seen is kept with the run, so the pages show it too."""
    import torch

    clear_up_in_the_end()
    torch.set_num_threads(1)
    store = existing(asked.directory)
    run = chosen(store, asked.run)
    steps = [step for step in store.trace(run.id).snapshots() if step <= asked.step]
    if not steps:
        raise ValueError(f"run {run.id} has no snapshot of the weights at or before step {asked.step:,}.")
    if asked.set and not asked.probe:
        raise ValueError("--set is given without --probe; an option belongs to one probe. Name it.")
    names = [asked.probe] if asked.probe else list(PROBES)
    options = {name: looking.options_of(run, name, dict(asked.set)) for name in names}
    for name in tqdm(names, unit=" probes"):
        looking.look(store, run.id, name, options[name], steps[-1], store.trace(run.id).snapshot(steps[-1]))
    for name in names:
        of = "".join(f", {key} {value}" for key, value in options[name].items())
        print(f"{name} at step {steps[-1]:,}{of} ({looks.mode(name, run.experiment)}): {PROBES[name].help}")
        try:
            table = looks.looked(store.trace(run.id), name, steps[-1], options[name])
        except ValueError as error:
            print(f"  {error}")
            continue
        print(looks.text(name, table, None if asked.probe else LINES))
        if asked.out:
            asked.out.mkdir(parents=True, exist_ok=True)
            print(tables.write_file(iter([table]), tables.FORMATS["csv"], asked.out / f"{name}.csv"))
    return 0


def runs(asked: argparse.Namespace) -> int:
    for run in existing(asked.directory).runs():
        some = run.diverged and run.status != "diverged"
        lost = f" ({len(run.diverged)} of {len(run.experiment.networks)} networks diverged)" if some else ""
        print(f"{run.id}  {run.created:%Y-%m-%d %H:%M}  {run.status:<11}  step {run.made:>9,}  {run.name}{lost}")
    return 0


def serve(asked: argparse.Namespace) -> int:
    on(SIGINT, SIG_IGN)  # that of the server's terminal; the server closes the pipe, and what is recorded is kept
    work.main(asked.directory)
    return 0


LARGEST = 1_000_000  # bytes of an experiment file
LINES = 60  # of one probe, where all are asked for
COMMANDS = {"train": train, "resume": resume, "export": export, "probe": probe, "runs": runs, "work": serve}


def read(file: Path) -> Experiment:
    """The experiment in a file. Raises ValueError with all that is wrong, OSError if it cannot be read."""
    try:
        with file.open("rb") as told:
            text = told.read(LARGEST + 1)  # a file without end would take all memory
        if len(text) > LARGEST:
            raise ValueError(
                f"{file} has more than {LARGEST // 1_000_000} MB, which no experiment needs. Name another file."
            )
        text = text.decode("utf-8-sig")
        experiment = Experiment.model_validate_json(text)
        json.loads(text, object_pairs_hook=once)
        return experiment
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not a text in UTF-8. Save it as UTF-8.") from None
    except ValidationError as error:
        raise ValueError(f"{file}: " + " ".join(problems(error))) from None
    except KeyError as twice:
        raise ValueError(f"{file}: {twice.args[0]} appears twice in the same object. Remove one of the two.") from None


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of a JSON file. Raises KeyError with a name that stands in it twice."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise KeyError(name)
        found[name] = value
    return found


def existing(directory: Path) -> RunStore:
    if not (directory / FILE).exists():
        raise ValueError(
            f"there is no run in {directory}. Train one: python -m bnlab train FILE.json --out {directory}"
        )
    return RunStore(directory)


def chosen(store: RunStore, run_id: str | None) -> Run:
    """The run with this id, or the newest."""
    if run_id is not None:
        return store.run(run_id)
    if found := store.runs(limit=1):
        return found[0]
    raise ValueError(f"there is no run in {store.directory}.")


if __name__ == "__main__":
    sys.exit(main())
