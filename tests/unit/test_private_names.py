"""Private names of torch, Ray, Optuna and MLflow: each is there, and stands in the one file of its library."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from pkgutil import resolve_name

import pytest

import tlsearch
from tlsearch.model import _private as of_torch
from tlsearch.search.cluster import _private as of_ray
from tlsearch.search.study import _private as of_optuna
from tlsearch.tracking import _private as of_mlflow

LIBRARIES = {"torch": of_torch, "ray": of_ray, "optuna": of_optuna, "mlflow": of_mlflow}
PACKAGE = Path(tlsearch.__file__).parent


@pytest.mark.parametrize(("library", "name"), [(one, name) for one, file in LIBRARIES.items() for name in file.NAMES])
def test_a_private_name_is_there(library: str, name: str) -> None:
    try:
        resolve_name(name)
    except (ImportError, AttributeError):
        pytest.fail(
            f"{library} {version(library)} has no {name}: find what replaces it, change {LIBRARIES[library].__file__}, "
            f"and the bound of {library} in pyproject.toml"
        )


def test_ray_reads_the_folders_of_workers_where_they_are_set() -> None:
    from ray.job_config import JobConfig

    assert hasattr(JobConfig(), "_py_driver_sys_path"), "change set_worker_folders to what replaces it"


def test_no_other_file_uses_a_private_name() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{line} {name}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name != "_private.py"
        for line, name in _private_names(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not found, "move these to the _private.py of their library: " + "; ".join(found)


def _private_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Imports of private names of the four libraries, and private attributes of what a file imports from them."""
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in LIBRARIES:
            imported |= {one.asname or one.name for one in node.names}
            if any(part.startswith("_") for part in [*node.module.split("."), *(one.name for one in node.names)]):
                yield node.lineno, node.module
        elif isinstance(node, ast.Import):
            roots = {one.asname or one.name.partition(".")[0]: one.name.partition(".")[0] for one in node.names}
            imported |= {name for name, root in roots.items() if root in LIBRARIES}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            root: ast.expr = node.value
            while isinstance(root, ast.Attribute):
                root = root.value
            if isinstance(root, ast.Name) and root.id in imported:
                yield node.lineno, ast.unparse(node)
