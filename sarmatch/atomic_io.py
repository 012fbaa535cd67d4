"""Files are written to a temporary name and renamed: an interruption leaves the old or the new, never half."""

import json
import os
import platform
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError

T = TypeVar("T", dict, list)


def write(path: Path, save: Callable[[Path], Any]) -> None:
    """Call `save` on a temporary file beside `path`, then rename it to `path`.

    What a process that was killed has left of such files in the folder is removed.

    Raises
    ------
    OSError
        With the path, where its folder cannot be written to or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{_writer(os.getpid())}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_over(path.parent)
        save(temporary)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        number, reason = getattr(error, "errno", None), getattr(error, "strerror", None) or error
        said = f"{path}: could not be written ({reason})"
        raise (OSError(said) if number is None else OSError(number, said)) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_json(path: Path, content: Any) -> None:
    """Write JSON with sorted-out indentation."""
    write(path, lambda p: p.write_text(json.dumps(content, indent=2) + "\n"))


def check_writable(folder: Path) -> None:
    """Whether files can be written to a folder, which is made for it and removed again where it is new.

    Raises
    ------
    OSError
        With the path, where they cannot.
    """
    new = not folder.exists()
    trial = folder / ".writable"
    write(trial, lambda p: p.write_text("."))
    trial.unlink()
    if new:
        folder.rmdir()


def read_json(path: Path, kind: type[T]) -> T:
    """An object (`dict`) or list of a JSON file.

    Raises
    ------
    FileNotFoundError
        Where there is none.
    ValueError
        Where the file is damaged or holds something else, with its path.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(content, kind):
        wanted = {dict: "an object", list: "a list"}[kind]
        raise ValueError(f"{path}: expected {wanted}, found {type(content).__name__}")
    return content


def _writer(process: int) -> str:
    return f"{platform.node().replace('.', '-')}-{process}"


def _remove_left_over(folder: Path) -> None:
    """Remove the temporary files of this machine's processes that are no more."""
    if os.name != "posix":  # elsewhere there is no asking for a process without ending it
        return
    for path in folder.glob(f".*.{_writer(0)[:-1]}*.part"):
        process = path.name.removesuffix(".part").rpartition("-")[2]
        if process.isdecimal() and not _lives(int(process)):
            path.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
