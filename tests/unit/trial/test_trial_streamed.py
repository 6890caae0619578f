"""A trial whose images do not fit into the cache gives the same numbers as one whose images do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tlsearch.core.types import CacheSpec, Decision, EpochReport, TrialAssignment, repeatable
from tlsearch.data import StreamedImages
from tlsearch.trial import inputs, release_held, run_trial

Assign = Callable[..., TrialAssignment]


class Recorder:
    """Keeps every report's metrics, but for those that a clock or the machine's load changes."""

    def __init__(self) -> None:
        self.metrics: list[Mapping[str, float]] = []

    def report(self, report: EpochReport) -> Decision:
        self.metrics.append({name: value for name, value in report.metrics.items() if repeatable(name)})
        return Decision.CONTINUE


@pytest.mark.parametrize(
    ("augmentation", "depth"),
    [
        ("none", 0),
        ("light", 1),
        pytest.param("none", 2, marks=pytest.mark.slow),
        pytest.param("strong", 5, marks=pytest.mark.slow),
    ],
)
def test_images_decoded_on_the_fly_change_nothing(
    assign: Assign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, augmentation: str, depth: int
) -> None:
    kinds = []
    real = inputs.open_pixels

    def opened(*arguments: object, **options: bool) -> object:
        pixels = real(*arguments, **options)  # type: ignore[arg-type]
        kinds.append(type(pixels.images))
        return pixels

    monkeypatch.setattr(inputs, "open_pixels", opened)
    found = []
    for name, images_gb in (("packed", None), ("streamed", 0.0)):
        recorder = Recorder()
        cache = CacheSpec(directory=str(tmp_path / f"cache-{name}"), images_gb=images_gb)
        setup = {"max_epochs": 2, "cache": cache}
        run_trial(assign(name, depth=depth, augmentation=augmentation, setup=setup), recorder)
        found.append(recorder.metrics)
        release_held()
    assert found[0] == found[1]
    assert kinds.count(StreamedImages) * 2 == len(kinds) > 0
