"""Files of a run folder that are damaged, missing or in the way."""

import json
import os
import platform
import resource
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import sarmatch as sm
from sarmatch.experiments.report import write_report
from tests.campaign.case import Case, Outcome, judge_call, judge_command
from tests.campaign.samples import copied_run, pairs, small_config

DOOR = "run folder"
Damage = Callable[[Path], object]


def _truncated(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _replaced_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Damage] = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": _truncated,
    "garbage": lambda path: path.write_bytes(bytes(range(256)) * 8),
    "of another kind": lambda path: path.write_text("3"),
    "null": lambda path: path.write_text("null"),
    "nested without end": lambda path: path.write_text("[" * 100_000),
    "a folder": _replaced_by_folder,
    "missing": Path.unlink,
}


def _go_on(path: Path) -> object:
    """Go on with a training that was cut off before it was evaluated."""
    (path / "metrics.json").unlink()
    return sm.run(small_config(), path, report=lambda history: None)


#: Files, and who reads them.
READERS: dict[str, Callable[[Path], object]] = {
    "config.json": sm.load_run,
    "metrics.json": lambda path: sm.load_run(path).summary,
    "history.csv": lambda path: sm.load_run(path).history,
    "model.safetensors": lambda path: sm.load_run(path).encoder,
    "training.safetensors": _go_on,
    "environment.json": lambda path: write_report(sm.load_run(path)),
    "results_cross_area_arbitrary.json": lambda path: sm.load_run(path).results("cross_area", "arbitrary"),
}


def cases() -> list[Case]:
    """Every damage of every file, and what else may be wrong with a folder."""
    found = [Case(DOOR, f"{name} {damage}", partial(_damaged, name, damage)) for name in READERS for damage in DAMAGES]
    return [*found, *(Case(DOOR, name, run) for name, run in SITUATIONS.items())]


def _damaged(name: str, damage: str, folder: Path) -> Outcome:
    path = copied_run(folder)
    before = json.loads((path / "metrics.json").read_text())
    DAMAGES[damage](path / name)
    trains_anew = name == "training.safetensors" and damage == "missing"
    right = partial(_same_metrics, before) if trains_anew else None
    return judge_call(lambda: READERS[name](path), name, right=right)


def _same_metrics(before: list[dict], run: sm.Run) -> bool:
    return json.loads((run.path / "metrics.json").read_text()) == before


def _changed_metrics(change: Callable[[list[dict]], object], folder: Path) -> Outcome:
    path = copied_run(folder) / "metrics.json"
    rows = json.loads(path.read_text())
    change(rows)
    path.write_text(json.dumps(rows))
    return judge_call(lambda: sm.load_run(path.parent).summary, "metrics.json")


def _changed_config(folder: Path, **changes: object) -> Outcome:
    path = copied_run(folder) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return judge_call(lambda: sm.load_run(path.parent), "config.json", next(iter(changes)))


def _weights(change: Callable[[dict[str, torch.Tensor]], object], folder: Path) -> Outcome:
    path = copied_run(folder) / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path)
    return judge_call(lambda: sm.load_run(path.parent).encoder, "model.safetensors")


def _state_of_another_encoder(folder: Path) -> Outcome:
    path = copied_run(folder)
    other = sm.run(small_config(encoder_options={"feature_dim": 16}), folder / "other", report=lambda history: None)
    shutil.copy(other.path / "training.safetensors", path)
    return judge_call(lambda: _go_on(path), "training.safetensors")


def _full_disk(folder: Path) -> Outcome:
    """No file may grow beyond 20 kB, which is what a full disk is to who writes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        words = ["run", "own", "--scene", str(pairs())]
        small = small_config().model_dump(mode="json", exclude={"scene", "name"})
        fields = [word for name, value in small.items() for word in ("--set", f"{name}={json.dumps(value)}")]
        return judge_command([*words, *fields], str(folder / "runs"), "could not be written")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _left_over(folder: Path) -> Outcome:
    """A killed process leaves a temporary file; the next that writes there removes it."""
    path = copied_run(folder)

    process = os.fork()
    if not process:
        os._exit(0)
    os.waitpid(process, 0)
    left = path / f".training.safetensors.{platform.node().replace('.', '-')}-{process}.part"
    left.write_bytes(b"half")
    return judge_call(lambda: _go_on(path), right=lambda run: not left.exists())


def _set(rows: list[dict], **fields: object) -> None:
    rows[0].update(fields)


def _convolution(weights: dict[str, torch.Tensor]) -> str:
    return next(name for name, value in weights.items() if value.ndim == 4)


def _cut(weights: dict[str, torch.Tensor], name: str) -> None:
    weights[name] = weights[name][:1].contiguous()


def _half(weights: dict[str, torch.Tensor]) -> None:
    for name in list(weights)[::2]:
        del weights[name]


SITUATIONS: dict[str, Callable[[Path], Outcome]] = {
    "metrics without rows": partial(_changed_metrics, list.clear),
    "metrics of other things": partial(_changed_metrics, lambda rows: rows.append(3)),
    "metrics without a method": partial(_changed_metrics, lambda rows: rows[0].pop("method")),
    "metrics, recall of 7": partial(_changed_metrics, lambda rows: _set(rows, **{"recall@1": 7.0})),
    "metrics, recall in words": partial(_changed_metrics, lambda rows: _set(rows, **{"recall@1": "high"})),
    "metrics, recall of null": partial(_changed_metrics, lambda rows: _set(rows, **{"recall@1": None})),
    "config, no such field": partial(_changed_config, junk=1),
    "config, epochs of 0": partial(_changed_config, epochs=0),
    "config, loss of null": partial(_changed_config, loss=None),
    "weights of NaN": partial(_weights, lambda weights: weights[_convolution(weights)].fill_(torch.nan)),
    "weights, half of them": partial(_weights, _half),
    "weights of another shape": partial(_weights, lambda weights: _cut(weights, _convolution(weights))),
    "training state of another encoder": _state_of_another_encoder,
    "a full disk": _full_disk,
    "a temporary file left over": _left_over,
}
