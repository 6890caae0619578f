"""The image size as a dimension on real drawings, by the commands a user types: killed, resumed, and in the report."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from homes import Home

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]

SIZES = (64, 96, 128)
NUM_TRIALS = 6
SPACE = """
name: sizes
data: {{source: folder, path: {data}}}
weights: {{mobilenet_v2: {weights}}}
space:
  backbone: mobilenet_v2
  image_size: [64, 96, 128]
  unfreeze_depth: 0
  head_lr: {{log: [1.0e-4, 1.0e-2]}}
search:
  trials: {trials}
  max_epochs: 2
  scheduler: none
  starting_points: none
  start_with: [{{image_size: 64}}, {{image_size: 128}}]
resources: {{max_concurrent: 1}}
storage: {home}/tlsearch_runs
tracking: {{uri: "{uri}"}}
"""


def _in_report(page: str) -> dict[int, tuple[int, float]]:
    """The number of trials and the best accuracy of each size, from the table of the report."""
    table = page.split("By image size")[1].split("</table>")[0]
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in table.split("<tr")]
    return {int(size): (int(trials), float(best.split()[0])) for size, trials, _, best, *_ in filter(None, rows)}


def _by_size(trials: list[dict[str, Any]]) -> dict[int, tuple[int, float]]:
    values: dict[int, list[float]] = {}
    for trial in trials:
        values.setdefault(trial["params"]["image_size"], []).append(trial["best_value"])
    return {size: (len(own), round(max(own), 4)) for size, own in values.items()}


def test_sizes_are_searched_through_a_kill_and_reported(tmp_path: Path, emoji_path: Path, weights_path: Path) -> None:
    """The driver dies with its third trial in the middle; the search then ends as if it had not."""
    home = Home(tmp_path)
    weights = weights_path / "mobilenet_v2.pth"
    values = {"data": emoji_path, "weights": weights, "home": tmp_path, "uri": home.tracking_uri, "trials": NUM_TRIALS}
    (tmp_path / "space.yaml").write_text(SPACE.format(**values))

    home.environment["TLSEARCH_CRASH_AT"] = "after_report_write:5"
    home.run("run", "space.yaml", "--name", "sizes", code=-signal.SIGKILL, timeout_s=900)
    del home.environment["TLSEARCH_CRASH_AT"]
    half = json.loads(home.run("results", "sizes", "--json"))["trials"]
    assert sorted(one["state"] for one in half) == ["complete", "complete", "running"]

    home.run("resume", "sizes", timeout_s=900)
    trials = json.loads(home.run("results", "sizes", "--json"))["trials"]
    assert [one["state"] for one in trials] == ["complete"] * NUM_TRIALS
    assert {one["trial"]: one["params"] for one in half}.items() <= {
        one["trial"]: one["params"] for one in trials
    }.items()
    by_size = _by_size(trials)
    assert by_size.keys() == set(SIZES) and sum(count for count, _ in by_size.values()) == NUM_TRIALS
    home.run("report", "sizes")
    assert _in_report((tmp_path / "tlsearch_runs/sizes/report/report.html").read_text()) == by_size
    assert by_size[128][1] > by_size[64][1] > 0.4, "drawings of 64 px seen at their own size and larger ones"
