"""`python -m tests.campaign.kills`: end commands in the middle, start them again, and compare with those not ended.

Every byte counts. The command line is the real one, in a process of its own. Every second trial ends it by SIGTERM, the
others by SIGKILL. Words pick commands: `run`, `locate`.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

from tests.campaign.locate import PLACE, sar_of
from tests.fake_data import write_pairs
from tests.fake_mosaics import write_tiff

FIELDS = {
    "epochs": 12,
    "pairs_per_epoch": 128,
    "batch_size": 16,
    "image_size": 32,
    "test_queries": 60,
    "val_queries": 20,
    "alignment": "wasserstein",
    "baseline_options": {"cells": 4},
}
MAP_PX = 4000  # along each side: several windows
SAID_OTHERWISE = {"environment.json", "report.html"}  # hold what a run was made with, which no training depends on


class Command(NamedTuple):
    """A command that is ended: its words, of which `OUT` is the folder that it writes into, a pattern of what is there
    as soon as it is at work and of what it writes last before it may be ended no more, how far it is, and how often it
    is ended."""

    words: list[str]
    begun: str
    done: str
    far: Callable[[Path], str]
    trials: int


def train(folder: Path) -> Command:
    """A run on a folder of pairs, ended while it trains."""
    scene = write_pairs(folder / "pairs")
    fields = [word for name, value in FIELDS.items() for word in ("--set", f"{name}={json.dumps(value)}")]

    def epochs(out: Path) -> str:
        return f"{sum(len(path.read_text().splitlines()) - 1 for path in out.glob('runs/*/history.csv'))} epochs"

    words = ["run", "own", "--scene", str(scene), *fields]
    return Command(words, "runs/*/config.json", "runs/*/training.safetensors", epochs, 20)


def locate(folder: Path) -> Command:
    """A strip on a map of many windows, ended until the last of its files is written."""
    smooth = gaussian_filter(np.random.default_rng(0).normal(size=(MAP_PX, MAP_PX)).astype(np.float32), 3)
    ground = (smooth - smooth.min()) / np.ptp(smooth)
    chart = write_tiff(folder / "map.tif", np.repeat((255 * ground[None]).astype(np.uint8), 3, 0), PLACE)
    strip = write_tiff(folder / "strip.tif", sar_of(ground[1000:1800, 2000:2200]), PLACE)

    def files(out: Path) -> str:
        written = [path for path in out.rglob("*") if path.is_file()]
        windows = sum(path.parent.parent.suffix == ".parts" for path in written)
        return f"{windows} windows and {len(written) - windows} other files"

    words = ["locate", str(strip), str(chart), "--method", "cfog", "-o", "OUT/fix.geojson"]
    return Command(words, "cache/galleries/*.parts", "fix.png", files, 10)


COMMANDS = {"run": train, "locate": locate}


def start(command: Command, out: Path) -> subprocess.Popen:
    """The command line at work."""
    line = [sys.executable, "-m", "sarmatch.cli", *(word.replace("OUT", str(out)) for word in command.words)]
    folders = {"SARMATCH_RUNS": str(out / "runs"), "SARMATCH_CACHE": str(out / "cache")}
    environment = os.environ | folders | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def at_work(process: subprocess.Popen, command: Command, out: Path) -> float:
    """The time when it has begun, or ended before."""
    while process.poll() is None and not list(out.glob(command.begun)):
        time.sleep(0.01)
    return time.time()


def finished(command: Command, out: Path) -> tuple[dict[str, bytes], float]:
    """The files of a command that is let to its end, by name, and the time when it had begun."""
    process = start(command, out)
    begun, code = at_work(process, command, out), process.wait()
    files = {str(path.relative_to(out)): path for path in out.rglob("*") if path.is_file()}
    held = {name: b"" if path.name in SAID_OTHERWISE else path.read_bytes() for name, path in files.items()}
    return held | {"exit code": str(code).encode()}, begun


def ended(number: int, command: Command, out: Path, seconds: float) -> str:
    """End a command at a time that its number gives; what was done, and how far it was."""
    process = start(command, out)
    at_work(process, command, out)
    time.sleep(random.Random(number).uniform(0, seconds))
    process.send_signal(signal.SIGTERM if number % 2 else signal.SIGKILL)
    code = process.wait()
    if not code:  # it was faster than that
        shutil.rmtree(out)
        return ended(number, command, out, seconds / 2)
    return f"{'SIGTERM' if number % 2 else 'SIGKILL'} after {command.far(out)} (exit code {code})"


def same_again(name: str, command: Command, folder: Path) -> int:
    """How many trials of a command end as one that was not ended; a line each."""
    whole = folder / "whole"
    wanted, begun = finished(command, whole)
    seconds = next(whole.glob(command.done)).stat().st_mtime - begun

    def trial(number: int) -> bool:
        out = folder / f"trial{number}"
        how = ended(number, command, out, seconds)
        found, _ = finished(command, out)
        differ = sorted(file for file in wanted.keys() | found.keys() if wanted.get(file) != found.get(file))
        said = f"differs in {differ}" if differ else "byte-identical"
        print(f"{name}, trial {number + 1:2}: {how}: {said}", flush=True)
        return not differ

    with ThreadPoolExecutor(2) as pool:
        return sum(pool.map(trial, range(command.trials)))


def main(names: list[str]) -> int:
    """All trials of some commands; 1 where one is not byte-identical or has left a file behind."""
    failed = False
    for name in names:
        with tempfile.TemporaryDirectory() as temporary:
            command = COMMANDS[name](Path(temporary))
            same = same_again(name, command, Path(temporary))
        print(f"{name}: {same} of {command.trials} byte-identical, no file left behind")
        failed |= same < command.trials
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(COMMANDS)))
