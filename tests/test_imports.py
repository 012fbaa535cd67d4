"""What an import costs: names load their rooms when they are used, and every public name resolves."""

import json
import multiprocessing
import re
import subprocess
import sys

import pytest

import sarmatch as sm
from sarmatch.paths import ROOT

HEAVY = {"torchvision", "timm", "torch_geometric", "ot", "sklearn", "umap", "numba", "matplotlib", "rasterio"}


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a fresh process holds after `code`."""
    ask = f"{code}\nimport json, sys\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_package_loads_nothing_heavy():
    assert not loaded_by("import sarmatch") & (HEAVY | {"torch", "faiss", "pandas", "scipy", "numpy"})


def test_the_command_line_loads_nothing_heavy_before_a_command_runs():
    assert not loaded_by("import sarmatch.cli") & (HEAVY | {"torch", "faiss", "pandas", "scipy", "numpy"})


def test_a_loss_loads_torch_and_no_data_nor_models():
    loaded = loaded_by("import sarmatch as sm; sm.create_loss('infonce')")
    assert "torch" in loaded
    assert not loaded & (HEAVY | {"faiss"})


@pytest.mark.slow
def test_a_run_and_its_report_need_nothing_of_the_notebooks():
    """They are an extra; a module that is None in `sys.modules` cannot be imported."""
    absent = ["IPython", "ipywidgets", "jupyterlab", "matplotlib_inline", "nbclient", "nbformat", "seaborn", "umap"]
    needed = "import sarmatch.figures, sarmatch.training, sarmatch.experiments.report, sarmatch.experiments.studies"
    loaded_by(f"import sys\nsys.modules.update(dict.fromkeys({absent}))\n{needed}\nsarmatch.figures.use_style()")


@pytest.mark.slow
def test_torch_comes_before_faiss():
    code = (
        "import sarmatch as sm, sys; sm.VectorSearch\n"
        "order = list(sys.modules); assert order.index('torch') < order.index('faiss')"
    )
    assert {"torch", "faiss"} <= loaded_by(code)


@pytest.mark.parametrize("name", sorted({*sm.__all__, *dir(sm)}))
def test_every_public_name_resolves(name):
    assert getattr(sm, name) is not None


def test_the_stub_lists_what_it_imports_in_order():
    listed = re.findall(r'^    "(\w+)",$', (ROOT / "sarmatch" / "__init__.pyi").read_text(), re.MULTILINE)
    assert listed == sorted(set(listed)) == sorted(sm.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="create_los"):
        _ = sm.create_los


def _lists_losses(_: int) -> list[str]:
    import sarmatch

    return sarmatch.list_losses()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_load_names_of_their_own(method):
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.map(_lists_losses, [0]) == [sm.list_losses()]
