"""What a leaderboard compares though it should not is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from search_records import make_facts, record_of

from tlsearch.app.checks.feasibility import untried_backbones
from tlsearch.core.types import EpochReport, Plateau, TrialConfig, TrialRecord, TrialState
from tlsearch.results.leaderboard.leaderboard import leaderboard, results_json
from tlsearch.results.leaderboard.leaderboard_notes import comparability_notes, leaderboard_notes
from tlsearch.space import load


def trial(number: int, backbone: str, epochs: int, state: str = "pruned", reason: str = "asha") -> TrialRecord:
    reports = tuple(EpochReport(epoch=e, metrics={"val_accuracy": 0.5}, timestamp=0.0) for e in range(1, epochs + 1))
    return TrialRecord(
        number=number,
        state=TrialState(state),
        reason=reason,
        params={"backbone": backbone},
        config=TrialConfig(backbone=backbone),
        seed=0,
        best_value=0.5 if epochs else None,
        best_epoch=1 if epochs else None,
        reports=reports,
    )


def notes(*trials: TrialRecord, backbones: tuple[str, ...] = ()) -> list[str]:
    return comparability_notes(record_of(trials), replace(make_facts(), backbones=backbones))


def test_backbones_without_a_full_trial_are_named() -> None:
    found = notes(
        trial(0, "a", 4, "complete", "completed"),
        trial(1, "resnet18", 1),
        trial(2, "resnet18", 1),
        trial(3, "b", 3),
        trial(4, "c", 2, reason="diverged"),
        trial(5, "c", 0, "failed", "error"),
        trial(6, "c", 1),
        trial(7, "d", 2, "running", ""),
        trial(8, "e", 3, "complete", "plateaued"),
    )
    assert found == [
        "no trial of these backbones ran to its end, so that they are judged by less than others: "
        "resnet18: 2 trials, both stopped at epoch 1; b: 1 trial, stopped at epoch 3; "
        "c: 3 trials, 1 diverged, 1 failed, 1 stopped at epoch 1",
        "trials ran for 1 to 4 epochs: the value of one that was stopped is its best until then",
    ]


def test_backbones_that_were_never_tried_are_named() -> None:
    full = trial(0, "a", 4, "complete", "completed")
    assert notes(full, backbones=("a", "b", "c")) == ["never tried: b, c"]
    assert notes(full, backbones=("a",)) == notes(full) == []


def test_one_backbone_alone_is_compared_with_none() -> None:
    assert notes(trial(0, "a", 1), trial(1, "a", 1)) == []


def test_a_space_that_was_tried_whole_is_told_among_the_notes() -> None:
    record = replace(record_of([trial(0, "a", 4, "complete", "completed")]), space_tried=True)
    found = leaderboard_notes(record, leaderboard(record, {}), make_facts())
    assert found[-1] == "the search ended with 1 trial: every configuration of its space has been tried"


def test_a_search_that_plateaued_says_what_it_saw_and_how_to_go_on() -> None:
    plateau = Plateau(chance=0.074, margin=0.002, trials=1, limit=64, excess=0.0031)
    record = replace(record_of([trial(0, "a", 4, "complete", "completed")]), plateau=plateau)
    assert leaderboard_notes(record, leaderboard(record, {}), make_facts())[-1] == (
        "the search plateaued after 1 of 64 trials: the chance that one of the other 63 gains 0.002 or more of "
        "val_accuracy was 7% (its best values lie 0.0031 above the next one on average); "
        f"`tlsearch resume {record.search_id} --trials +12` searches on"
    )
    shown = results_json(record, {})["plateau"]
    assert shown == {"chance": 0.074, "margin": 0.002, "trials": 1, "limit": 64, "excess": 0.0031, "saved": 63}
    assert results_json(replace(record, plateau=None), {})["plateau"] is None


def test_more_backbones_than_trials_is_a_warning(tmp_path: Path) -> None:
    def told(**search: Any) -> str:
        names = [f"resnet{size}" for size in (18, 34, 50, 101, 152)] + ["vit_b_16", "vit_b_32"]
        keys = ", ".join(f"{key}: {value}" for key, value in search.items())
        text = f"name: a\ndata: {{source: digits}}\nspace: {{backbone: [{', '.join(names)}]}}\nsearch: {{{keys}}}\n"
        (tmp_path / "space.yaml").write_text(text)
        return untried_backbones(*load(tmp_path / "space.yaml"))

    assert told(trials=4).startswith("7 backbones, 4 trials: 3 are never tried; ")
    assert told(trials=6) == (
        "7 backbones, 6 trials: 1 is never tried; list fewer backbones, or set search.trials to 7 or more"
    )
    assert told(trials=7) == ""
    assert told(trials=7, start_with="[{backbone: vit_b_16}]") == "", "which is a try of it"
    assert told(trials=7, start_with="[{backbone: resnet18, unfreeze_depth: 0, head_lr: 0.001}]") == ""
    assert told(sampler="fixed", trials=1, start_with="[{backbone: vit_b_16}]") == ""
