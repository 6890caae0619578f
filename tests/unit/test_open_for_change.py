"""What is open for change stands in one place: a row's name is in the file of its table, and where it is used."""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

import tlsearch

PACKAGE = Path(tlsearch.__file__).parent


@cache
def _words() -> dict[str, frozenset[str]]:
    """By file the names of attributes and fields, and the texts but for docstrings."""
    return {str(path.relative_to(PACKAGE)): _of(ast.parse(path.read_text("utf-8"))) for path in PACKAGE.rglob("*.py")}


def _of(tree: ast.Module) -> frozenset[str]:
    nodes = list(ast.walk(tree))
    expressions = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and id(node) not in expressions}
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    fields = {node.target.id for node in nodes if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}
    return frozenset(map(str, texts)) | attributes | fields


def test_no_file_name_stands_twice() -> None:
    """But one ``_private.py`` for each library: a name that stands twice has two meanings, or one thing two places."""
    names = Counter(path.name for path in PACKAGE.rglob("*.py"))
    assert {name for name, count in names.items() if count > 1} <= {"__init__.py", "_private.py"}


@pytest.mark.parametrize(
    ("name", "files"),
    [
        pytest.param("stats", ["space/bn_policies.py"], id="a BN policy"),
        pytest.param("bitfit", ["model/adapters/adaptation.py", "space/adapt_methods.py"], id="a way to adapt stages"),
        pytest.param("ssf", ["model/adapters/adaptation.py", "space/adapt_methods.py"], id="another way"),
        pytest.param(
            "last4", ["core/types/trial_config.py", "model/staging/token_features.py"], id="what a head sees of tokens"
        ),
        pytest.param("val_top5_accuracy", ["core/metrics.py"], id="a metric"),
        pytest.param("val_balanced_accuracy", ["core/metrics.py"], id="another metric"),
        pytest.param("script", ["results/export/export_formats.py"], id="an export format"),
        pytest.param("openvino", ["results/export/export_formats.py"], id="another format"),
        pytest.param("grad_clip", ["core/types/trial_config.py"], id="a hyperparameter"),
        pytest.param("label_smoothing", ["core/types/trial_config.py"], id="another hyperparameter"),
    ],
)
def test_a_row_stands_in_its_table_alone(name: str, files: list[str]) -> None:
    found = sorted(file for file, words in _words().items() if name in words)
    assert [file for file in found if not file.startswith("train/")] == files
