"""Backbones screened on a real Ray by the command, killed -9 in between: only what was not recorded is repeated."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_search import write_shapes
from test_crashes import environment

from tlsearch.search import read_search
from tlsearch.search.cluster.local_ray import ray_folder

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

BACKBONES = ("shufflenet_v2_x0_5", "mobilenet_v3_small", "squeezenet1_1")
SPACE = """
name: shapes
data: {source: folder, path: ./images, image_size: 32}
weights: {mobilenet_v3_small: none, squeezenet1_1: none, shufflenet_v2_x0_5: none}
space:
  backbone: {from: [shufflenet_v2_x0_5, mobilenet_v3_small, squeezenet1_1], screen: true}
  head_lr: {log: [1.0e-4, 1.0e-1]}
search: {trials: 4, max_epochs: 2}
"""


def command(root: Path, *words: str, point: str = "") -> tuple[int, str, int]:
    """Exit code, output, and the number of Ray sessions that the process has started."""
    with open(root / "output", "w+") as output:  # a pipe would wait for all of Ray's processes
        process = subprocess.Popen(
            [sys.executable, "-m", "tlsearch", *words],
            cwd=root,
            env=environment(root, point),
            stdout=output,
            stderr=output,
        )
        try:
            code = process.wait(timeout=300)
        finally:
            process.kill()
    sessions = list(Path(ray_folder()).glob(f"session_*_{process.pid}"))  # Ray names them by time and process
    return code, (root / "output").read_text(), len(sessions)


def test_a_killed_screen_goes_on_and_the_search_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)  # the commands have none either
    write_shapes(tmp_path / "images")
    (tmp_path / "space.yaml").write_text(SPACE)
    code, said, _ = command(tmp_path, "run", "space.yaml", "--name", "one", point="backbone_probed:2")
    assert code == -signal.SIGKILL, said
    kept = tmp_path / "tlsearch_runs" / "one" / "screen.json"
    first = json.loads(kept.read_text())
    assert len(first["passes"]) == 2 and not first["kept"]
    assert not (kept.parent / "study.journal").exists()
    code, said, sessions = command(tmp_path, "status", "one", "--json")
    assert sessions == 0
    assert code == 0 and json.loads(said)["screen"]["num_backbones"] == 3

    code, said, sessions = command(tmp_path, "resume", "one", point="after_report_write:1")
    assert code == -signal.SIGKILL and "[3/3 screened]" in said, said
    assert sessions == 1  # the passes and the trials share one
    decided = json.loads(kept.read_text())
    assert decided["kept"] and all(one in decided["passes"] for one in first["passes"])  # they end in any order

    code, said, _ = command(tmp_path, "resume", "one")
    assert code == 0 and "screened]" not in said, said
    assert json.loads(kept.read_text()) == decided
    trials = read_search(kept.parent).trials
    assert len(trials) == 4 and {trial.config.backbone for trial in trials} <= set(decided["kept"])
    code, said, _ = command(tmp_path, "results", "one", "--json")
    assert code == 0 and {one["name"] for one in json.loads(said)["screen"]["backbones"]} == set(BACKBONES)
    assert 'id="screen"' in (kept.parent / "report" / "report.html").read_text()
