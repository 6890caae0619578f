"""The leaderboard at every width: the parameters are there, nothing is cut, and it says how many rows are left out."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from tlsearch.cli.tables.results_table import print_leaderboard
from tlsearch.core.types import EpochReport, Scalar, SearchRecord, TrialConfig, TrialRecord, TrialState
from tlsearch.results.leaderboard.leaderboard import leaderboard
from tlsearch.results.leaderboard.search_facts import SearchFacts

WIDTHS = (60, 80, 120, 200, 10_000)
FACTS = SearchFacts(classes=("a", "b"), images={"train": 100, "val": 50}, parameters={"resnet18": 11_000_000})


def _trial(number: int, **params: Scalar) -> TrialRecord:
    value = 0.5 + number / 100
    report = EpochReport(epoch=1, metrics={"val_accuracy": value, "epoch_seconds": 0.25 + number}, timestamp=0.0)
    return TrialRecord(
        number=number,
        state=TrialState.PRUNED,
        reason="asha",
        params={"backbone": "resnet18", **params},
        config=TrialConfig(backbone="resnet18"),
        seed=0,
        best_value=value,
        best_epoch=1,
        reports=(report,),
    )


def _record(*trials: TrialRecord, search_id: str = "photos-1") -> SearchRecord:
    return SearchRecord(search_id=search_id, experiment="x", metric="val_accuracy", directory="/x", trials=trials)


MANY = _record(
    *(
        _trial(
            number,
            unfreeze_depth=number % 4,
            head_lr=(0.001, 0.0246, 0.03)[number % 3],
            weight_decay=(0.0, 1e-4)[number % 2],
            bn_policy=("frozen", "train")[number % 2],
            unfreeze_schedule=("at_once", "progressive")[number % 2],
            augmentation=("none", "strong")[number % 2],
            optimizer=("adamw", "sgd")[number % 2],
            **({"backbone_lr": 3.456e-5 * number} if number % 4 else {}),
        )
        for number in range(14)
    )
)


def _shown(record: SearchRecord, width: int, rows: int | None = None) -> str:
    text = io.StringIO()
    print_leaderboard(Console(file=text, width=width), record, leaderboard(record, {}, FACTS)[:rows])
    return text.getvalue()


@pytest.mark.parametrize("width", WIDTHS)
def test_every_width_shows_all_parameters_whole(width: int) -> None:
    text = _shown(MANY, width, 10)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text and "photos-1: 10 of 14 trials by best val_accuracy" in text
    for name in ("unfreeze", "head", "decay", "policy", "schedule", "augmentation", "optimizer", "backbone"):
        assert name in text
    # one form a column, a zero is a zero
    assert "1.00e-03" in text and "2.46e-02" in text and "0.0246" not in text and "0.0e+00" not in text
    assert len(re.findall(r"progressive", text)) == 5 and len(re.findall(r"±", text)) == 10
    assert "resnet18" not in text  # equal in all trials


@pytest.mark.parametrize("width", (20, 40))
def test_a_very_narrow_terminal_still_has_the_values(width: int) -> None:
    text = _shown(MANY, width, 1)
    assert "0.6300" in text and "head_lr 2.46e-02" in text


def test_few_parameters_have_columns_at_80() -> None:
    record = _record(*(_trial(number, unfreeze_depth=number, head_lr=0.01 * (number + 1)) for number in range(3)))
    text = _shown(record, 80)
    assert text.startswith("photos-1: 3 trials by best") and "┃" in text and max(map(len, text.splitlines())) <= 80


def test_one_trial_shows_what_it_was() -> None:
    text = _shown(_record(_trial(0, unfreeze_depth=2)), 80)
    assert "1 trial by" in text and "resnet18" in text and "depth" in text


def test_names_are_no_markup() -> None:
    record = _record(_trial(0, optimizer="[red]x[/red]"), _trial(1, optimizer="[/]"), search_id="a[bold]b")
    for width in WIDTHS:
        text = _shown(record, width)
        assert "[red]x[/red]" in text and "[/]" in text and "a[bold]b: 2 trials" in text
