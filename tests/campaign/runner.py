"""Tries cases in worker processes that are used again until one of them hangs."""

import contextlib
import importlib
import io
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from tests.campaign.case import OUTCOMES, Case, Outcome

LIMIT = 10.0  # seconds in which a case must have an outcome
OURS = {"case.py", "runner.py", "samples.py", "__main__.py"}
CONTEXT = multiprocessing.get_context("spawn")  # the threads of torch and faiss do not outlive a fork


def all_cases() -> list[Case]:
    """The cases of all modules of this folder, in the order of their names."""
    modules = sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.name not in OURS)
    found = [importlib.import_module(f"tests.campaign.{name}") for name in modules]
    return [case for module in found if hasattr(module, "cases") for case in module.cases()]


def try_all(cases: Sequence[Case], workers: int = 2, limit: float = LIMIT) -> list[Outcome]:
    """The outcome of each case; a worker that takes longer than `limit` seconds is ended, and that is a hang."""
    with tempfile.TemporaryDirectory() as folder:
        crew = Crew(cases, Path(folder), limit)
        try:
            return crew.outcomes(workers)
        finally:
            crew.end()


class Crew:
    """Workers, the case that each is at, and since when."""

    def __init__(self, cases: Sequence[Case], folder: Path, limit: float) -> None:
        self.cases, self.folder, self.limit = cases, folder, limit
        self.todo = iter(range(len(cases)))
        self.busy: dict[Connection, tuple[SpawnProcess, int | None, float]] = {}

    def outcomes(self, workers: int) -> list[Outcome]:
        """Of all cases, in their order."""
        found: dict[int, Outcome] = {}
        for _ in range(min(workers, len(self.cases))):
            self._start()
        while self.busy:
            for pipe in wait(list(self.busy), timeout=0.2):
                process, number, _ = self.busy.pop(pipe)
                try:
                    answer = pipe.recv()
                except EOFError:  # it died
                    answer = "traceback"
                    self._start()
                else:
                    self._give(pipe, process)
                if number is not None:
                    found[number] = answer
            for pipe, (process, number, since) in list(self.busy.items()):
                if number is not None and time.monotonic() - since > self.limit:
                    del self.busy[pipe]
                    process.kill()
                    found[number] = "hang"
                    self._start()
        return [found[number] for number in range(len(self.cases))]

    def end(self) -> None:
        """Of what is still at work, where all was interrupted."""
        for process, _, _ in self.busy.values():
            process.kill()

    def _start(self) -> None:
        """A worker, which says that it is ready as soon as it has imported what the cases need."""
        ours, theirs = CONTEXT.Pipe()
        process = CONTEXT.Process(target=_work, args=(theirs, self.folder), daemon=True)
        process.start()
        theirs.close()
        self.busy[ours] = (process, None, time.monotonic())

    def _give(self, pipe: Connection, process: SpawnProcess) -> None:
        number = next(self.todo, None)
        pipe.send(None if number is None else self.cases[number][:2])
        if number is not None:
            self.busy[pipe] = (process, number, time.monotonic())


def _work(pipe: Connection, folder: Path) -> None:
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "SARMATCH_CAMPAIGN": str(folder / str(os.getpid()))}
    for name in ("cli", "experiments.report", "experiments.studies", "experiments.sweeps", "explorer.features"):
        importlib.import_module(f"sarmatch.{name}")
    known = {case[:2]: case for case in all_cases()}
    pipe.send("ready")
    while (which := pipe.recv()) is not None:
        own = folder / f"{os.getpid()}case"
        own.mkdir()
        os.environ["SARMATCH_RUNS"] = str(own / "runs")
        pipe.send(_outcome(known[which], own))
        shutil.rmtree(own, ignore_errors=True)


def _outcome(case: Case, folder: Path) -> Outcome:
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
