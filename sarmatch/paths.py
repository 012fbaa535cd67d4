"""Where sarmatch keeps what it makes, rendered scenes and run folders, and where what comes with it lies."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def _folder(variable: str, in_checkout: str) -> Path:
    if os.environ.get(variable):  # an empty one would mean the current folder
        return Path(os.environ[variable])
    return ROOT / in_checkout if _is_checkout() else Path.home() / ".cache" / "sarmatch" / in_checkout


def _is_checkout() -> bool:
    return (ROOT / "pyproject.toml").is_file()


def cache_dir() -> Path:
    """Folder of rendered scenes: ``$SARMATCH_CACHE``, or ``data/cache`` of the checkout."""
    return _folder("SARMATCH_CACHE", "data/cache")


def runs_dir() -> Path:
    """Folder of run folders: ``$SARMATCH_RUNS``, or ``runs`` of the checkout."""
    return _folder("SARMATCH_RUNS", "runs")


def shipped(in_checkout: str) -> Path:
    """A file or folder that comes with the package, by its path in the checkout, from which `setup.py` copies it.

    Raises
    ------
    FileNotFoundError
        Where sarmatch is no checkout and its wheel does not carry it.
    """
    if _is_checkout():
        return ROOT / in_checkout
    path = ROOT / "sarmatch" / "shipped" / in_checkout
    if not path.exists():
        raise FileNotFoundError(f"{in_checkout}: is not part of the installed package, expected a checkout of sarmatch")
    return path
