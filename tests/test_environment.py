"""pyproject.toml, constraints.txt and environment.yml say the same, and the imports survive the installed builds."""

import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from sarmatch.paths import ROOT, cache_dir, runs_dir

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
CONDA_NAMES = {"torch": "pytorch", "torch-geometric": "pytorch_geometric"}  # the rest differs in case at most


def bounds(requirements: list[str]) -> dict[str, SpecifierSet]:
    """Canonical pip name to its bounds."""
    parsed = [Requirement(text) for text in requirements]
    return {canonicalize_name(r.name): r.specifier for r in parsed}


def conda_packages() -> dict[str, SpecifierSet]:
    """Conda name to its bounds."""
    lines = [line for line in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"] if line != "pip"]
    packages = {}
    for line in lines:
        if isinstance(line, dict):
            continue
        match = re.fullmatch(r"([\w.-]+)(?: ([<>=!~][\w.,<>=!~*]*))?", line)
        assert match, f"environment.yml: {line!r} is not 'name bounds' (a build string, perhaps?)"
        name, bound = match.groups()
        assert name not in packages, f"environment.yml lists {name!r} twice"
        packages[name] = SpecifierSet(bound or "")
    return packages


def test_environment_repeats_the_names_and_bounds_of_pyproject():
    wanted = bounds(PROJECT["dependencies"] + EXTRAS["cpu"] + EXTRAS["notebooks"] + EXTRAS["dev"])
    expected = {CONDA_NAMES.get(name, name): bound for name, bound in wanted.items()}
    expected["python"] = SpecifierSet(PROJECT["requires-python"])
    assert conda_packages() == expected


def test_environment_uses_one_channel_and_installs_the_checkout():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    assert environment["dependencies"][-1] == {"pip": ["-e ."]}


def test_constraints_fit_the_bounds_and_pin_every_direct_dependency():
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    declared = bounds(PROJECT["dependencies"] + [r for extra in EXTRAS.values() for r in extra])
    assert not declared.keys() - pins.keys(), "not pinned in constraints.txt"
    wrong = {name: (pins[name], str(bound)) for name, bound in declared.items() if not bound.contains(pins[name])}
    assert not wrong, f"constraints.txt breaks the bounds of pyproject.toml: {wrong}"
    assert not [v for v in pins.values() if "+" in v], (
        "a local version such as +cpu installs on one kind of machine only"
    )


def test_nothing_installs_both_builds_of_faiss():
    lists = {"dependencies": PROJECT["dependencies"], **EXTRAS}
    builds = {where: {n for n in bounds(texts) if n.startswith("faiss")} for where, texts in lists.items()}
    assert {where: found for where, found in builds.items() if found} == {"cpu": {"faiss-cpu"}, "gpu": {"faiss-gpu"}}
    assert len([n for n in conda_packages() if n.startswith(("faiss", "libfaiss"))]) == 1


@pytest.mark.slow
def test_sarmatch_and_then_timm_import_in_a_fresh_process():
    code = "import sarmatch, timm, torchvision.transforms; print(timm.is_model('resnet18'), sarmatch.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["True", PROJECT["version"]]


@pytest.mark.slow
def test_timm_imports_where_torchvision_failed_before():
    code = """
try:
    import torchvision
except RuntimeError as error:
    assert "torchvision::nms" in str(error)
import sarmatch
import timm
print(timm.is_model("resnet18"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["True"]


def test_other_failures_of_torchvision_are_let_through(tmp_path):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("raise RuntimeError('out of cheese')")
    code = "import sys; sys.path.insert(0, sys.argv[1]); import sarmatch, torchvision"
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert "RuntimeError: out of cheese" in done.stderr


@pytest.mark.parametrize(("variable", "folder"), [("SARMATCH_RUNS", runs_dir), ("SARMATCH_CACHE", cache_dir)])
def test_an_empty_variable_is_none_at_all(variable, folder, monkeypatch, tmp_path):
    monkeypatch.delenv(variable, raising=False)
    usual = folder()
    monkeypatch.setenv(variable, "")
    assert folder() == usual
    monkeypatch.setenv(variable, str(tmp_path))
    assert folder() == tmp_path


def test_no_large_file_is_tracked():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    assert len(files) > 100
    assert not [f.name for f in files if f.is_file() and f.stat().st_size > 4 * 2**20]
