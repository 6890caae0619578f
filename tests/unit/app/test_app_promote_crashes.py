"""A promotion that is killed at any of its points leaves the old alias or the complete new one, and can go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tlsearch.core.crash import PROMOTION

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).resolve().parents[2] / "support" / "promotion_crashes.py"


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("crashes")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parent)}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(root)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads((root / "outcome.json").read_text())
    assert set(found) == set(PROMOTION)
    return found


@pytest.mark.parametrize("point", PROMOTION)
def test_a_death_leaves_the_old_or_the_new(outcome: dict[str, Any], point: str) -> None:
    one = outcome[point]
    assert one["killed"] == -signal.SIGKILL, f"the promotion never came to {point}"
    left = one["left"]
    assert left["complete"]
    if point == "alias_set":
        assert left["aliases"] == {"champion": "2", "previous": "1"} and left["trial"] == "1"
    else:
        assert left["aliases"]["champion"] == "1" and left["trial"] == "0"
    if PROMOTION.index(point) < PROMOTION.index("version_made"):
        assert left["versions"] == ["1"] and left["aliases"] == {"champion": "1"}
    assert left["uses"] == [0, 1]  # on record before the first test image is decoded


@pytest.mark.parametrize("point", PROMOTION)
def test_the_same_call_again_completes_it(outcome: dict[str, Any], point: str) -> None:
    one = outcome[point]
    assert one["after"] == {
        "aliases": {"champion": "2", "previous": "1"},
        "trial": "1",
        "complete": True,
        "versions": ["1", "2"],
        "models": 2,  # nothing half-made is left
        "uses": [0, 1],
    }
