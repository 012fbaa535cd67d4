"""Run the notebooks: for the committed outputs, and for the tests, which never write back.

A notebook ends with `record_metrics(...)`: it prints its key numbers as JSON, so that the next run can be compared
with the committed one.
"""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from tqdm.auto import tqdm

from sarmatch.atomic_io import write, write_json
from sarmatch.paths import ROOT
from sarmatch.progress import progress
from sarmatch.training.checkpoints import describe_environment

FOLDER = ROOT / "notebooks"
TIMEOUT = 600  # seconds a cell may take
#: No progress bars, which are for who waits; one thread, so that a training adds up in one order on any machine.
FIXED = {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
#: Metadata that changes from run to run, or that makes GitHub refuse the file.
VOLATILE = ("widgets", "papermill", "execution", "language_info")


def record_metrics(name: str, **metrics: float) -> None:
    """Print a notebook's key numbers as JSON, with the profile, machine and commit that made them.

    Parameters
    ----------
    name
        Of the notebook, e.g. `00_start_here`.
    metrics
        Numbers. One whose name has a partner `..._chance` must be better than it. They are also written to `name.json`
        in the folder that the environment variable `SARMATCH_RECORD` names, if it does.
    """
    environment = describe_environment()
    content = {
        "notebook": name,
        "made_with": {
            "profile": os.environ.get("SARMATCH_PROFILE", "quick"),
            **{key: environment[key] for key in ("machine", "python", "torch", "commit")},
        },
        "metrics": {key: round(float(value), 6) for key, value in metrics.items()},
    }
    if folder := os.environ.get("SARMATCH_RECORD"):
        write_json(Path(folder) / f"{name}.json", content)
    print(json.dumps(content, indent=2))


def recorded(notebook: NotebookNode) -> dict:
    """What `record_metrics` printed in the last code cell of an executed notebook.

    Raises
    ------
    ValueError
        Where the last code cell printed no such thing.
    """
    last = [cell for cell in notebook.cells if cell.cell_type == "code"][-1]
    text = "".join(out.text for out in last.outputs if out.output_type == "stream" and out.name == "stdout")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"the last cell printed no record but {text[:80]!r}") from error


def list_notebooks(folder: Path = FOLDER) -> list[Path]:
    """All notebooks `NN_topic.ipynb`, in their order."""
    return sorted(folder.glob("[0-9][0-9]_*.ipynb"))


def execute(path: Path, out: Path | None = None, profile: str = "quick", timeout: int = TIMEOUT) -> NotebookNode:
    """Execute a notebook in a fresh kernel that works in the notebook's folder.

    Parameters
    ----------
    path
        The notebook; it is not changed.
    out
        Where to write the executed one, if anywhere; may be `path`.
    profile
        `quick` or `full`, handed to the notebook as `SARMATCH_PROFILE`.
    timeout
        Seconds a cell may take.

    Returns
    -------
    The notebook with its outputs.

    Raises
    ------
    nbclient.exceptions.CellExecutionError, nbclient.exceptions.CellTimeoutError
        At the first cell that fails or takes too long; nothing is written then.
    """
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute(env=os.environ | FIXED | {"SARMATCH_PROFILE": profile})
    for holder in (notebook, *notebook.cells):
        for name in VOLATILE:
            holder.metadata.pop(name, None)
    if out is not None:
        write(out, lambda p: nbformat.write(notebook, p))
    return notebook


def execute_all(
    write_back: bool = False,
    profile: str | None = None,
    timeout: int = TIMEOUT,
    folder: Path = FOLDER,
    report: Callable[[str], object] = tqdm.write,
) -> dict[str, dict]:
    """Execute all notebooks in their order.

    Parameters
    ----------
    write_back
        Keep the outputs in the notebooks themselves, when all are done: what is committed. Each then says the commit
        that it was executed at, and none that the one before it has changed the tree.
    profile
        `quick` or `full`; `SARMATCH_PROFILE`, else `quick`, by default.
    timeout
        Seconds a cell may take.
    folder
        Where they lie.
    report
        Called with a line per notebook.

    Returns
    -------
    What each recorded, by its name.
    """
    profile = profile or os.environ.get("SARMATCH_PROFILE", "quick")
    records, executed = {}, {}
    for path in progress(list_notebooks(folder), desc=f"notebooks ({profile})", unit="notebook"):
        executed[path] = execute(path, None, profile, timeout)
        records[path.stem] = recorded(executed[path])
        report(f"{path.name}: {len(records[path.stem]['metrics'])} numbers recorded")
    if write_back:
        for path, notebook in executed.items():
            write(path, partial(nbformat.write, notebook))
    return records
