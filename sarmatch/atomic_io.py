"""Files are written to a temporary name and renamed: an interruption leaves the old or the new, never half."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write(path: Path, save: Callable[[Path], Any]) -> None:
    """Call `save` on a temporary file beside `path`, then rename it to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON with sorted-out indentation."""
    write(path, lambda p: p.write_text(json.dumps(content, indent=2) + "\n"))
