"""`python -m tests.campaign.kills`: end a run in the middle, start it again, and compare every byte with one not ended.

The command line is the real one, in a process of its own. Every second trial ends it by SIGTERM, the others by SIGKILL.
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fake_data import write_pairs

TRIALS = 20
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
SAID_OTHERWISE = {"environment.json", "report.html"}  # hold what a run was made with, which no training depends on


def start(scene: Path, runs: Path) -> subprocess.Popen:
    """The command line at work."""
    words = [word for name, value in FIELDS.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    line = [sys.executable, "-m", "sarmatch.cli", "run", "own", "--scene", str(scene), *words]
    environment = os.environ | {"SARMATCH_RUNS": str(runs), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finished(scene: Path, runs: Path) -> dict[str, bytes]:
    """The files of a run that is let to its end, by name."""
    code = start(scene, runs).wait()
    (folder,) = runs.iterdir()
    return {p.name: b"" if p.name in SAID_OTHERWISE else p.read_bytes() for p in folder.iterdir()} | {
        "exit code": str(code).encode()
    }


def ended(number: int, scene: Path, runs: Path, seconds: float) -> str:
    """End a run at a time that its number gives, while it trains; what was done, and how far it was."""
    process = start(scene, runs)
    while process.poll() is None and not list(runs.glob("*/config.json")):
        time.sleep(0.01)
    time.sleep(random.Random(number).uniform(0, seconds))
    process.send_signal(signal.SIGTERM if number % 2 else signal.SIGKILL)
    code = process.wait()
    if not code:  # it was faster than that
        shutil.rmtree(runs)
        return ended(number, scene, runs, seconds / 2)
    epochs = sum(len(path.read_text().splitlines()) - 1 for path in runs.glob("*/history.csv"))
    return f"{'SIGTERM' if number % 2 else 'SIGKILL'} after {epochs} epochs (exit code {code})"


def main() -> int:
    """All trials, a line each; 1 where one is not byte-identical or has left a file behind."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        scene = write_pairs(folder / "pairs")
        wanted = finished(scene, folder / "whole")
        begun, trained = (
            next((folder / "whole").glob(f"*/{name}")) for name in ("config.json", "training.safetensors")
        )
        seconds = trained.stat().st_mtime - begun.stat().st_mtime

        def trial(number: int) -> bool:
            runs = folder / f"trial{number}"
            how = ended(number, scene, runs, seconds)
            found = finished(scene, runs)
            differ = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
            print(f"trial {number + 1:2}: {how}:", f"differs in {differ}" if differ else "byte-identical", flush=True)
            return not differ

        with ThreadPoolExecutor(2) as pool:
            same = sum(pool.map(trial, range(TRIALS)))
    print(f"{same} of {TRIALS} byte-identical, no file left behind")
    return same < TRIALS


if __name__ == "__main__":
    sys.exit(main())
