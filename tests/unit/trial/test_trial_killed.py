"""Trials killed at any moment, also while the writer's thread writes: what was reported is on disk, nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import killed_trials
import pytest

KILLS = 25


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_25_kills_lose_nothing(colours_path: Path, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    colours_path.rename(tmp_path / "root" / "images")
    command = [sys.executable, killed_trials.__file__, str(tmp_path / "root"), str(KILLS)]
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=800, check=False
    )
    assert done.returncode == 0, done.stderr
    kills = [json.loads(line) for line in done.stdout.splitlines()]
    assert [kill for kill in kills if not (kill["kept"] and kill["same"])] == []
    assert all(kill["killed"] for kill in kills[: len(killed_trials.POINTS)]), f"a point was not passed: {kills}"
    assert sum(kill["killed"] for kill in kills) == KILLS
