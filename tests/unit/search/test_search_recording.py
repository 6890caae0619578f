"""The script that records curves: each configuration once, whatever interrupts it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from small_search import write_shapes
from twice import SPACE

from tlsearch.testing.replay import read_curves

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "record_curves.py"


def _record(folder: Path, *arguments: str) -> str:
    command = [sys.executable, str(SCRIPT), "space.yaml", "--out", "curves.json", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_recording_goes_on_where_it_was(tmp_path: Path) -> None:
    write_shapes(tmp_path / "images")
    (tmp_path / "space.yaml").write_text(SPACE)
    first = _record(tmp_path, "--count", "2")
    assert [line.split(":")[0] for line in first.splitlines()[:2]] == ["0", "1"]
    before = read_curves(tmp_path / "curves.json").curves
    assert "2: " in (second := _record(tmp_path, "--count", "3")) and "1: " not in second
    curves = read_curves(tmp_path / "curves.json")
    assert curves.curves[:2] == before and len(curves.curves) == 3
    assert [curve.config.backbone for curve in curves.curves] == [
        "mobilenet_v3_small",
        "squeezenet1_1",
        "mobilenet_v3_small",
    ]
    assert [curve.config.unfreeze_depth for curve in curves.curves] == [0, 0, 1]
    assert all(curve.num_epochs == 3 for curve in curves.curves)
    assert curves.about["images"] == {"train": 18, "val": 24, "test": 30} and "torch" in curves.about["versions"]
    assert "platform" not in json.dumps(dict(curves.about))
