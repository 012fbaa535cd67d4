"""The explorer as a page of its own, without a notebook around it: served by voila on this machine."""

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat

from sarmatch.paths import ROOT
from sarmatch.training import load_run

SOURCE = """import sarmatch as sm
from sarmatch.datasets import load_scene
run = sm.load_run({run!r})
sm.explore(run, {scene})"""


def page_notebook(run: Path, scene: str | None = None) -> nbformat.NotebookNode:
    """The notebook behind the page: one cell that opens the explorer.

    Parameters
    ----------
    run, scene
        Folder of a run, and another scene than its own: a simulated one, or a folder with data.
    """
    of = "None" if scene is None else f"load_scene({scene!r}).select(run.scene().areas[0].strips[0].bands)"
    cell = nbformat.v4.new_code_cell(SOURCE.format(run=str(run.resolve()), scene=of))
    return nbformat.v4.new_notebook(cells=[cell], metadata={"title": f"sarmatch: {run.name}"})


def serve(run: Path, scene: str | None = None, port: int = 8866, browser: bool = True) -> None:
    """Serve the explorer until it is interrupted.

    Parameters
    ----------
    run, scene
        See `page_notebook`.
    port
        Of the page on this machine; nobody else can reach it.
    browser
        Whether to open it.

    Raises
    ------
    ValueError
        Where voila is not installed, or the page ends by itself.
    FileNotFoundError
        Where the folder holds no finished run.
    """
    load_run(run)
    if importlib.util.find_spec("voila") is None:
        raise ValueError(
            "voila is not installed, which serves the page: pip install 'sarmatch[voila]'; "
            "in a notebook, sarmatch.explore(run) needs nothing more"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "explore.ipynb"
        nbformat.write(page_notebook(run, scene), path)
        words = [sys.executable, "-m", "voila", str(path), f"--port={port}", "--Voila.ip=127.0.0.1"]
        words += [] if browser else ["--no-browser"]
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        print(f"http://localhost:{port} shows the explorer; Ctrl+C ends it", flush=True)
        code = subprocess.run(words, env=os.environ | {"PYTHONPATH": paths}, check=False).returncode
    if code:
        raise ValueError(f"the page ended with code {code}; is port {port} taken? Choose another one with --port")
