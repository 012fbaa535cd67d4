"""Tries cases in worker processes that are used again until one of them hangs."""

import contextlib
import importlib
import io
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path

from tests.campaign.case import OUTCOMES, Case, Outcome

LIMIT = 10.0  # seconds in which a case must have an outcome
OURS = {"case.py", "runner.py", "__main__.py"}


def all_cases() -> list[Case]:
    """The cases of all modules of this folder, in the order of their names."""
    modules = sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.name not in OURS)
    found = [importlib.import_module(f"tests.campaign.{name}") for name in modules]
    return [case for module in found if hasattr(module, "cases") for case in module.cases()]


def try_all(cases: Sequence[Case], workers: int = 2, limit: float = LIMIT) -> list[Outcome]:
    """The outcome of each case; a worker that takes longer than `limit` seconds is ended, and that is a hang."""
    context = multiprocessing.get_context("fork")  # cases are closures, which cannot be sent
    outcomes: dict[int, Outcome] = {}
    todo = iter(range(len(cases)))
    busy: dict[Connection, tuple[multiprocessing.Process, int, float]] = {}

    def start() -> tuple[Connection, multiprocessing.Process]:
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(cases, theirs), daemon=True)
        process.start()
        theirs.close()
        return ours, process

    def give(pipe: Connection, process: multiprocessing.Process) -> None:
        number = next(todo, None)
        if number is None:
            pipe.close()
            process.join()
            return
        pipe.send(number)
        busy[pipe] = (process, number, time.monotonic())

    for _ in range(min(workers, len(cases))):
        give(*start())
    while busy:
        for pipe in wait(list(busy), timeout=0.2):
            process, number, _ = busy.pop(pipe)
            try:
                outcomes[number] = pipe.recv()
                give(pipe, process)
            except EOFError:  # it died
                outcomes[number] = "traceback"
                give(*start())
        for pipe, (process, number, since) in list(busy.items()):
            if time.monotonic() - since > limit:
                del busy[pipe]
                os.kill(process.pid, signal.SIGKILL)
                process.join()
                outcomes[number] = "hang"
                give(*start())
    return [outcomes[number] for number in range(len(cases))]


def _work(cases: Sequence[Case], pipe: Connection) -> None:
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SARMATCH_RUNS"] = f"{folder}/runs"
        while True:
            try:
                number = pipe.recv()
            except EOFError:
                return
            pipe.send(_outcome(cases[number], Path(folder) / str(number)))


def _outcome(case: Case, folder: Path) -> Outcome:
    folder.mkdir()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            return case.run(folder)
        except Exception:  # the case itself is at fault, or what it tries to do
            return "traceback"


def table(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> str:
    """What came of the cases: a row per door and one for all."""
    doors = list(dict.fromkeys(case.door for case in cases))
    lines = [f"{'door':16}{'tried':>8}" + "".join(f"{name:>11}" for name in OUTCOMES[1:])]
    for door in [*doors, "all"]:
        own = [outcome for case, outcome in zip(cases, outcomes, strict=True) if door in ("all", case.door)]
        lines.append(f"{door:16}{len(own):8}" + "".join(f"{own.count(name):11}" for name in OUTCOMES[1:]))
    return "\n".join(lines)
