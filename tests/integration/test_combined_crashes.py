"""kill -9 inside ``ensemble``, ``soup`` and ``promote --distill``: the same call again makes what was to be made.

Of a search with folds: tests/unit/app/test_app_folds.py; of a promotion: tests/unit/app/test_app_promote_crashes.py.
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

from tlsearch.config.checkpoint_meta import META_FILE
from tlsearch.config.ensemble_meta import ENSEMBLE_FILE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


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
    undisturbed = outcome.pop("")
    whole = undisturbed["after"]
    assert undisturbed["killed"] == 0 and undisturbed["left"] == whole
    assert len(whole["versions"]) == len(whole["aliases"]) == (kind == "distilled")
    assert tuple(outcome) == combined_crashes.POINTS[kind] and len(outcome) >= 5
    for point, one in outcome.items():
        left = one["left"]
        assert one["killed"] == -signal.SIGKILL, f"the command never came to {point}"
        assert one["after"] == whole, point
        assert left["trials"] == whole["trials"], point
        assert left["aliases"] == {}, f"{point}: a model was in production before it was whole"
        if point == "version_made":  # the combination was whole before
            assert (left["made"], left["digest"]) == (whole["made"], whole["digest"])
        else:
            assert left["made"] is None and left["versions"] == [], point
        if "tensors" in point:  # of a model that the search does not know yet
            assert any(name.endswith(".safetensors") for name in left["files"]), point
            assert not {META_FILE, ENSEMBLE_FILE} & {Path(name).name for name in left["files"]}, point
