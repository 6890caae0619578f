"""A search of images with several classes each, by the commands a user types, in Ray's workers."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from homes import Home
from several_labels import COUNTS, SPACE, TINTS, write_tints

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]


def test_from_a_table_to_a_promoted_model(tmp_path: Path) -> None:
    home = Home(tmp_path)
    write_tints(tmp_path / "images")
    (tmp_path / "space.yaml").write_text(SPACE.format(more=""))
    home.run("run", "space.yaml", "--name", "tints")
    found = json.loads(home.run("results", "tints", "--json"))
    assert found["metric"] == "val_map" and [one["state"] for one in found["trials"]] == ["complete"] * 3
    home.run("report", "tints")
    assert "Average precision by class" in (tmp_path / "tlsearch_runs/tints/report/report.html").read_text()
    promoted = json.loads(home.run("promote", "tints", "--json"))
    assert promoted["test"]["num_images"] == COUNTS["test"] and 0 < promoted["test"]["mean_average_precision"] <= 1
    home.environment["MLFLOW_TRACKING_URI"] = home.tracking_uri
    images = [str(tmp_path / "images" / f"test-{number:02d}.png") for number in range(4)]
    answers = json.loads(home.run("predict", promoted["uri"], *images, "--json"))
    assert all(set(TINTS) >= {one["label"] for one in answer["labels"]} for answer in answers)
    rows = list(csv.DictReader(io.StringIO(home.run("predict", promoted["uri"], *images, "--csv"))))
    assert [row["labels"] for row in rows] == ["|".join(one["label"] for one in answer["labels"]) for answer in answers]
