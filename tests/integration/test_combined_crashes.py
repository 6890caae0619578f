"""kill -9 inside ``ensemble`` and ``promote --distill``: the same call again makes what an undisturbed one does.

Of a soup: tests/unit/app/test_app_soup.py; of a search with folds: tests/unit/app/test_app_folds.py; of a promotion:
tests/unit/app/test_app_promote_crashes.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import combined_crashes
import pytest


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", list(combined_crashes.POINTS))
def test_a_death_at_five_points_costs_nothing_that_was_done(tmp_path: Path, kind: str) -> None:
    output = tmp_path / "output"
    with output.open("w") as written:
        command = [sys.executable, combined_crashes.__file__, str(tmp_path), kind]
        done = subprocess.run(
            command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=written, stderr=written, check=False
        )
    assert done.returncode == 0, output.read_text()[-4000:]
    outcome = json.loads((tmp_path / "outcome.json").read_text())
    whole = outcome.pop("")
    assert whole["killed"] == 0 and whole["left"] == whole["after"]
    assert len(whole["after"]["versions"]) == len(whole["after"]["aliases"]) == (kind == "distilled")
    for point, one in outcome.items():
        assert one["killed"] == -signal.SIGKILL, f"the command never came to {point}"
        assert one["after"] == whole["after"], point
        left = one["left"]
        assert left["aliases"] == {}, f"{point}: a model was in production before it was whole"
        later = point == "version_made"  # the combination was whole before
        assert (left["said"] is not None) == later and (left["digest"] == whole["after"]["digest"]) == later
