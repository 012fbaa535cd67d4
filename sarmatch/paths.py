"""Where sarmatch keeps what it makes: rendered scenes and run folders."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def _folder(variable: str, in_checkout: str) -> Path:
    if os.environ.get(variable):  # an empty one would mean the current folder
        return Path(os.environ[variable])
    in_a_checkout = (ROOT / "pyproject.toml").is_file()
    return ROOT / in_checkout if in_a_checkout else Path.home() / ".cache" / "sarmatch" / in_checkout


def cache_dir() -> Path:
    """Folder of rendered scenes: ``$SARMATCH_CACHE``, or ``data/cache`` of the checkout."""
    return _folder("SARMATCH_CACHE", "data/cache")


def runs_dir() -> Path:
    """Folder of run folders: ``$SARMATCH_RUNS``, or ``runs`` of the checkout."""
    return _folder("SARMATCH_RUNS", "runs")
