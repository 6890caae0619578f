"""What a trial does before its epochs is there to be read while it does it, and gone afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tlsearch.app.views.status import trial_doing
from tlsearch.core.types import TrialAssignment
from tlsearch.trial import FineTuning, context

Assign = Callable[..., TrialAssignment]


def test_packing_and_storing_are_told_while_they_last(
    assign: Assign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "_INTERVAL_S", 0.0)
    write, seen = context.Doing.__call__, []

    def heard(self: context.Doing, what: str, done: int, total: int) -> None:
        write(self, what, done, total)
        seen.append(trial_doing(str(tmp_path), 0))

    monkeypatch.setattr(context.Doing, "__call__", heard)
    trial = FineTuning(assign("trials/0"))
    assert {"packing train images, 30 of 30", "packing val images, 21 of 21", "storing features, 0 of 21"} <= set(seen)
    trial.step()
    assert trial_doing(str(tmp_path), 0) == ""
    trial.close()


def test_short_work_is_not_told(tmp_path: Path) -> None:
    doing = context.Doing(tmp_path)
    doing("packing train images", 1, 2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"what": 1}'])
def test_a_file_that_says_nothing_is_no_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "trials" / "3").mkdir(parents=True)
    (tmp_path / "trials" / "3" / context.DOING_FILE).write_text(content)
    assert trial_doing(str(tmp_path), 3) == ""
