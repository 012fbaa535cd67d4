"""What judges and what draws know of arrays and tables, and of no model."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import sarmatch

ROOMS = ("alignment", "encoders", "losses", "training", "experiments")


def imported(tree: ast.AST) -> Iterator[str]:
    """Modules that a file imports when it runs; what only a type checker reads is left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        else:
            yield from imported(node)


@pytest.mark.parametrize("room", ["evaluation", "figures"])
def test_a_room_without_models_imports_none(room):
    for file in (Path(sarmatch.__file__).parent / room).glob("*.py"):
        found = {name for name in imported(ast.parse(file.read_text())) if name.startswith("sarmatch.")}
        assert not [name for name in found if name.split(".")[1] in ROOMS], file.name
