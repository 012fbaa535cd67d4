"""Starts a script in several processes on CPUs, as a launcher does on several GPUs."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def launched(count: int, *words: object, fails: bool = False) -> str:
    """What a script, or `-m` and a module, with its words prints in `count` processes; also where it `fails`."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    # `accelerate launch --cpu` starts one process whatever it is told, unless there is MPI
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
    done = subprocess.run([*launch, *map(str, words)], env=environment, capture_output=True, text=True, check=False)
    assert bool(done.returncode) == fails, done.stderr[-2000:]
    return done.stdout
