"""``run --promote``: what is confirmed in the time that is left, and what is printed at the end."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import typer
from search_records import make_trial, record_of

from tlsearch.app.production.within_time import Deadline, plan_confirm
from tlsearch.cli.commands import run_promote
from tlsearch.cli.commands.production import _confirm_table
from tlsearch.core.errors import DataError
from tlsearch.core.types import TrialRecord
from tlsearch.results.stats.verdict import Confirmed


@dataclass(frozen=True, kw_only=True)
class _Promoted:
    uri: str = "models:/flat@champion"


@dataclass(frozen=True, kw_only=True)
class _Confirmed:
    recommended: int = 1


def _trials(seconds: float, number: int = 3) -> list[TrialRecord]:
    """Trials of two epochs, one after another."""
    found = []
    for one in range(number):
        trial = make_trial(one, [0.5, 0.6 + one / 10], seconds=seconds, params={"head_lr": 0.001 * (one + 1)})
        found.append(replace(trial, started=10.0 * one, ended=10.0 * one + 10))
    return found


def test_the_search_gets_its_share_however_long_the_start_took() -> None:
    clock = iter((100.0, 300.0))
    deadline = Deadline(total_s=600.0, timer=lambda: next(clock), began=0.0)
    assert deadline.search_s == pytest.approx(420)
    assert deadline.confirm_s == pytest.approx(600 - 100 - 45)
    assert Deadline(total_s=None).search_s is None and Deadline(total_s=None).confirm_s is None


@pytest.mark.parametrize(
    ("left_s", "size"),
    [(None, (3, 3)), (10_000, (3, 3)), (1_000, (3, 2)), (700, (2, 2)), (500, (0, 0)), (-5.0, (0, 0))],
)
def test_the_largest_confirmation_that_fits_is_taken(left_s: float | None, size: tuple[int, int]) -> None:
    trials = _trials(10.0)  # 12 s an epoch with caution: 3 configurations, 3 seeds, 10 epochs take 25 + 1.3 * 9 * 102 s
    plan = plan_confirm(record_of(trials), trials, num_reports=10, left_s=left_s)
    assert (plan.top, plan.seeds) == size
    assert bool(plan.reason) == (size == (0, 0))


def test_one_configuration_alone_is_not_confirmed() -> None:
    plan = plan_confirm(record_of(_trials(1.0, 1)), _trials(1.0, 1), num_reports=2, left_s=None)
    assert plan.top == 0 and "nothing to compare" in plan.reason


def test_trials_beside_one_another_shorten_it() -> None:
    trials = [replace(one, started=0.0, ended=20.0) for one in _trials(10.0)]
    assert plan_confirm(record_of(trials), trials, num_reports=10, left_s=700).top == 3


@pytest.mark.parametrize("step", ["epoch", "fold"])
def test_the_table_of_confirm_names_what_its_times_are_of(step: Literal["epoch", "fold"]) -> None:
    result = Confirmed(
        search_id="made-up",
        confirm_search_id="made-up-confirm",
        experiment="",
        metric="val_accuracy",
        mode="max",
        data_digest="",
        num_val_images=1,
        seeds=2,
        step=step,
        ended=0.0,
        candidates=(),
        comparisons=(),
        outcome="unknown",
        recommended=1,
        verdict="",
    )
    assert _confirm_table(result).columns[-1].header == f"s/{step}"


def test_data_without_a_test_split_are_refused_before_the_search(tmp_path: Path) -> None:
    from PIL import Image

    from tlsearch.space import load

    for split in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8), split == "val" and "white" or "black").save(tmp_path / split / name / "0.png")
    file = tmp_path / "space.yaml"
    file.write_text("name: x\ndata: {source: folder, path: .}\nspace: {backbone: resnet18}\n")
    with pytest.raises(DataError, match="--promote tests the winner on a test split"):
        run_promote.check_promotable(load(file)[0])


def _finish(monkeypatch: pytest.MonkeyPatch, *, promoted: Any, confirmed: Any, as_json: bool, left_s: float) -> None:
    record = record_of(_trials(1.0))
    end: Any = SimpleNamespace(entry=SimpleNamespace(search_id="made-up"), record=record, run_ids={})
    prepared: Any = SimpleNamespace(file=SimpleNamespace(search=SimpleNamespace(num_reports=2)))

    def promote(entry: Any, options: Any) -> Any:
        if isinstance(promoted, Exception):
            raise promoted
        return promoted

    monkeypatch.setattr("tlsearch.app.production.promote.promote", promote)
    monkeypatch.setattr("tlsearch.cli.commands.production.run_confirm", lambda *_, **__: confirmed)
    monkeypatch.setattr("tlsearch.cli.commands.production.print_promoted", lambda result: print(result.uri))
    deadline = Deadline(total_s=left_s + 45, timer=lambda: 0.0, began=0.0)
    run_promote.confirm_and_promote(end, prepared, deadline, address="local", as_json=as_json)


def test_a_promoted_model_is_shown_with_its_next_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _finish(monkeypatch, promoted=_Promoted(), confirmed=None, as_json=False, left_s=0)
    printed = capsys.readouterr().out
    assert "not confirmed: training the best two again" in printed and "tlsearch confirm made-up" in printed
    assert "models:/flat@champion" in printed and "tlsearch predict models:/flat@champion IMAGES" in printed


def test_programs_get_one_document(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _finish(monkeypatch, promoted=_Promoted(), confirmed=_Confirmed(), as_json=True, left_s=500)
    document = json.loads(capsys.readouterr().out)
    assert document["promotion"]["uri"] == _Promoted().uri and document["confirm"] == {"recommended": 1}
    assert document["search_id"] == "made-up" and document["best"] == 2
    with pytest.raises(typer.Exit) as left:
        _finish(monkeypatch, promoted=DataError("the split was used"), confirmed=None, as_json=True, left_s=0)
    document = json.loads(capsys.readouterr().out)
    assert left.value.exit_code == 2 and document["promotion"] is None
    assert document["promotion_error"] == "the split was used"


def test_a_refused_promotion_says_why(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="the split was used"):
        _finish(monkeypatch, promoted=DataError("the split was used"), confirmed=None, as_json=False, left_s=0)
    assert "not promoted:" in capsys.readouterr().out
