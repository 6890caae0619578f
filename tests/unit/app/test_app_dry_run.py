"""``check --dry-run`` changes nothing, however long its work takes, and its JSON has the backbones."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

import pytest
from small_search import SPACE, write_shapes
from typer.testing import CliRunner

from tlsearch.cli.root import app
from tlsearch.trial import context


def _tree(root: Path) -> dict[str, str]:
    """Every file's digest and every folder below, by path."""
    contents = {}
    for path in sorted(root.rglob("*")):
        contents[str(path.relative_to(root))] = "" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
    return contents


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "_INTERVAL_S", 0.0)  # as on a machine where all work takes long
    root, scratch = tmp_path / "work", tmp_path / "tmp"
    scratch.mkdir()
    write_shapes(root / "images")
    (root / "space.yaml").write_text(SPACE.format(more=""))
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.chdir(root)
    before = _tree(root)
    import tlsearch.cli.commands  # noqa: F401  # its modules add their commands

    done = CliRunner().invoke(app, ["check", "space.yaml", "--dry-run", "--json"])
    assert done.exit_code == 0, done.output
    for backbone in json.loads(done.stdout)["backbones"]:
        assert set(backbone["trainable_parameters"]) == set("012345") and backbone["adapted_parameters"] == {}
    assert _tree(root) == before and _tree(scratch) == {}
    cache = Path(os.environ["TLSEARCH_CACHE_DIR"])
    assert [path for path in cache.rglob("*") if path.is_file()] == []
