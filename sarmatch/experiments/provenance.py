"""What a number was made with: the code, the weights, the commit."""

import ast
import hashlib
import json
import os
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

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


def commits_of(rows: pd.DataFrame, whole: str) -> list[str]:
    """Commits that rows were made at, sorted.

    Parameters
    ----------
    rows
        Of a recorded table; where it has a column `commit`, each row says its own.
    whole
        What the whole table says, commits joined by commas: for rows that say nothing.

    Returns
    -------
    Short hashes; `HASH-dirty` where the tree had uncommitted changes, `unknown` where nothing is known.
    """
    said = list(rows["commit"].fillna("").astype(str)) if "commit" in rows else [""]
    found = {part.strip() for text in said for part in (text or whole).split(",")}
    return sorted(part or "unknown" for part in found)


def with_commits(made: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Rows that were computed from others, with the commits of those in a last column `commit`, joined by commas.

    Parameters
    ----------
    made
        Names the methods of each row, `arm` and where it has one `control`, and where it is of one only the `seed`,
        `protocol`, `kind` and length `k`. A method `chance` or `ceiling` is of the queries of the first one.
    table
        What they were computed from, a row per run and task, with its `commit`.

    Raises
    ------
    ValueError
        For a method that the table does not hold.
    """
    where = [name for name in ("seed", "protocol", "kind", "k") if name in made and name in table]
    known: dict[tuple, str] = {}
    texts = []
    for row in made.to_dict("records"):
        arms = [row["arm"], *([row["control"]] if "control" in row else [])]
        key = (*arms, *(row[name] for name in where))
        if key not in known:
            names = [table["arm"].iloc[0] if arm in ("chance", "ceiling") else arm for arm in arms]
            of_task = (table[where] == pd.Series({name: row[name] for name in where})).all(axis=1)
            parts = [table[of_task & (table["arm"] == name)] for name in names]
            if any(part.empty for part in parts):
                raise ValueError(f"no row of the table is of {key}: its commit is not known")
            known[key] = ", ".join(commits_of(pd.concat(parts), ""))
        texts.append(known[key])
    return made.drop(columns="commit", errors="ignore").assign(commit=texts)


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
