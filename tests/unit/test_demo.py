"""``make demo`` leaves nothing among the ready search spaces."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tlsearch.config import load_space_file

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_the_demo_runs_in_a_folder_of_its_own(tmp_path: Path) -> None:
    asked = subprocess.run(
        ["make", "--dry-run", "--old-file", ".venv/.demo", "demo"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    (run,) = [line for line in asked.stdout.splitlines() if " run " in line]
    space = run.split()[-1]
    assert space == "demo/space.yaml" and f"cp search_spaces/quickstart.yaml {space}" in asked.stdout
    assert "/demo/" in (ROOT / ".gitignore").read_text().split()
    copied = tmp_path / "space.yaml"
    shutil.copy(ROOT / "search_spaces" / "quickstart.yaml", copied)
    file = load_space_file(copied)
    assert Path(file.storage).parent == tmp_path and str(tmp_path) in file.tracking.uri  # all beside the copy
