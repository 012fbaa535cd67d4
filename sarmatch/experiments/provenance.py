"""What a number was made with: the code, the weights, the commit."""

import ast
import hashlib
import json
import os
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from sarmatch.paths import ROOT
from sarmatch.training.checkpoints import commit_of, describe_environment
from sarmatch.training.runs import Run


def digest_of(what: Any) -> str:
    """Twelve letters that stand for anything JSON can hold."""
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]


@cache
def code_version(rooms: tuple[str, ...], root: Path = ROOT) -> str:
    """Twelve letters that stand for what the code of some rooms does: comments, docstrings and layout do not count."""
    digest = hashlib.sha256()
    for room in rooms:
        place = root / "sarmatch" / room
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]:
            digest.update(ast.dump(_without_docstrings(ast.parse(path.read_text()))).encode())
    return digest.hexdigest()[:12]


def _without_docstrings(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
    return tree


def identity_of(run: Run) -> dict[str, str]:
    """The config and the weights of a run."""
    files = sorted(run.path.glob("*.safetensors"))
    weights = {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest()[:12] for p in files if p.name != "training.safetensors"
    }
    config = run.config.model_dump(mode="json") | {"scene": Path(run.config.scene).name}
    return {"config": digest_of(config), **weights}


def made_with() -> dict[str, str]:
    """The commit and the machine, for a row of a table."""
    environment = describe_environment()
    return {name: environment[name] for name in ("commit", "machine", "torch")}


def provenance_line(*packages: str) -> str:
    """Versions, device, profile and commit in one line, for the first screen of a notebook.

    Parameters
    ----------
    packages
        Distributions to name beside sarmatch and torch, as pip calls them, e.g. `POT`.

    Returns
    -------
    The profile is that of the environment variable `SARMATCH_PROFILE`, else `quick`; a commit with changes on top of
    it, also of the records that notebooks show, ends in `-dirty`.

    Raises
    ------
    importlib.metadata.PackageNotFoundError
        For a distribution that is not installed.
    """
    environment = describe_environment()
    names = ("sarmatch", "torch", *packages)
    versions = ", ".join(f"{name} {environment.get(name) or metadata.version(name)}" for name in names)
    device = environment["machine"].split(", ")[-1]
    profile = os.environ.get("SARMATCH_PROFILE", "quick")
    return f"{versions}, device: {device}, profile: {profile}, commit: {commit_of(ROOT)}"
