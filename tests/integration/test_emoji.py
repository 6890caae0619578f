"""The main job on real drawings with real weights: what it reaches, and that predictions say the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from homes import Home

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1800)]

SPACE = Path(__file__).resolve().parents[2] / "search_spaces" / "emoji.yaml"


def _emoji(home: Home, emoji_path: Path, weights_path: Path, *more: str) -> None:
    home.root.mkdir(parents=True, exist_ok=True)
    sets = [f"weights.mobilenet_v2={weights_path / 'mobilenet_v2.pth'}"]
    sets += [f"weights.timm/tf_efficientnet_lite0={weights_path / 'tf_efficientnet_lite0.pth'}", *more]
    # the file's own folder is the repository's: what the search writes goes home
    sets += [f"storage={home.root / 'tlsearch_runs'}", f"tracking.uri={home.tracking_uri}"]
    options = [part for value in sets for part in ("--set", value)]
    home.run("run", str(SPACE), "--data", str(emoji_path), "--name", "emoji", *options, timeout_s=1500)


def _assert_predictions_say_the_same(home: Home, emoji_path: Path) -> float:
    results = json.loads(home.run("results", "emoji", "--json"))
    predictions = json.loads(home.run("predict", "emoji", str(emoji_path / "val"), "--json"))
    right = sum(Path(p["path"]).parent.name == p["label"] for p in predictions)
    best = results["trials"][0]["best_value"]
    assert right / len(predictions) == pytest.approx(best, abs=1e-12)
    return float(best)


@pytest.mark.slow
def test_predictions_of_the_best_model_give_the_reported_accuracy(
    tmp_path: Path, emoji_path: Path, weights_path: Path
) -> None:
    home = Home(tmp_path / "home")
    _emoji(
        home,
        emoji_path,
        weights_path,
        "search.trials=2",
        "search.max_epochs=2",
        "search.start_with=[]",
        "search.scheduler=none",
        "space.unfreeze_depth=[0, 1]",
    )
    assert _assert_predictions_say_the_same(home, emoji_path) > 0.4


@pytest.mark.slow
def test_emoji_search_reaches_what_fine_tuning_can(tmp_path: Path, emoji_path: Path, weights_path: Path) -> None:
    home = Home(tmp_path / "home")
    _emoji(home, emoji_path, weights_path)
    assert _assert_predictions_say_the_same(home, emoji_path) >= 0.69
