"""What promote takes by itself: the solved head, unless a trial is convincingly better."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from search_records import make_trial, record_of
from space_files import load_space_file

from tlsearch.app.combined.ensemble_costs import Limits
from tlsearch.app.production import choice, combined_choice
from tlsearch.app.production.choice import solved_head
from tlsearch.app.production.confirm import best_candidates
from tlsearch.core.errors import UserError
from tlsearch.core.types import SearchRecord, StartReport, TrialConfig, TrialRecord
from tlsearch.results.combine.combination import Combination, Member, write_combination


def started(number: int, start: float, value: float, **more: object) -> TrialRecord:
    """A trial that starts at ``start`` and reaches ``value`` in its second epoch."""
    trial = make_trial(number, [min(start, value) - 0.1, value], **more)  # type: ignore[arg-type]
    metric = next(iter(trial.reports[0].metrics))
    first = replace(trial.reports[0], start=StartReport(metrics={metric: start}, timestamp=1.0))
    best = (start, 0) if start >= value else (value, 2)
    return replace(trial, reports=(first, *trial.reports[1:]), best_value=best[0], best_epoch=best[1])


def search(best: float, count: int = 8) -> SearchRecord:
    """Trials that all start at 0.6, one of which reaches ``best``."""
    trials = [started(number, 0.6, 0.5, params={"head_lr": 0.001 * (number + 1)}) for number in range(count)]
    return record_of([*trials[:-1], started(count - 1, 0.6, best, params={"head_lr": 0.5})])


@pytest.mark.parametrize(
    ("best", "images", "solved"),
    [
        (0.5, 24, True),
        (0.7, 24, True),
        (0.78, 24, True),
        (0.8, 24, False),
        (0.67, 100, False),
        (0.63, 100, True),
        (0.63, 348, False),
    ],
)
def test_a_trial_has_to_convince(best: float, images: int, solved: bool) -> None:
    found = solved_head(search(best), images)
    assert (found is not None) == solved
    if found is not None:
        trial, reason = found
        assert (trial.number, trial.best_epoch, trial.best_value) == (0, 0, 0.6)
        assert ("trial 7 with" in reason) == (best > 0.6)


def test_a_head_without_steps_is_not_before_one() -> None:
    probed = started(0, 0.6, 0.5)
    ridge = TrialConfig(backbone="resnet18", unfreeze_depth=0, head="ridge", head_penalty=0.1)
    for config, words in ((probed.config, "its solved head before the first step, "), (ridge, "its solved head, ")):
        found = solved_head(record_of([replace(probed, config=config)]), 24)
        assert found is not None and found[1].startswith(words + "val_accuracy 0.6")


def test_without_solved_heads_or_with_another_metric_the_best_trial_is_taken() -> None:
    assert solved_head(record_of([make_trial(0, [0.5]), make_trial(1, [0.6])]), 24) is None
    losses = record_of([started(0, 0.6, 0.65, metric="val_loss")], metric="val_loss")
    assert solved_head(losses, 24) is None
    assert solved_head(record_of([]), 24) is None


def test_trials_with_one_solved_head_are_one_candidate_to_confirm() -> None:
    record = search(0.76)
    assert [trial.number for trial in best_candidates(record, 8)] == [7, 0]
    assert len(best_candidates(record, 8, by_model=False)) == 8


def test_a_search_with_a_latency_as_objective_is_limited_by_its_own_measurements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [(0.7, 20.0, 128), (0.65, 9.0, 96), (0.6, 5.0, 64)]
    trials = [
        replace(
            make_trial(n, [value], params={"head_lr": 0.001 * (n + 1)}),
            config=TrialConfig(backbone="resnet18", image_size=size),
            measured={"latency_ms": ms},
        )
        for n, (value, ms, size) in enumerate(found)
    ]
    record = replace(record_of(trials), cost="latency_ms")
    path = tmp_path / "space.yaml"
    path.write_text(
        "name: a\ndata: {source: digits}\nspace: {backbone: resnet18, image_size: [64, 96, 128]}\n"
        "search: {objectives: [val_accuracy, latency_ms]}\n"
    )
    monkeypatch.setattr(choice, "read_record", lambda entry: record)
    monkeypatch.setattr(choice, "read_confirmed", lambda entry: None)
    monkeypatch.setattr(choice, "measure_latency", lambda spec: 0.0)
    entry = SimpleNamespace(search_id="a")

    def chosen(limit: float) -> choice.Choice:
        limits = Limits(latency_ms=limit)
        return choice.choose(entry, load_space_file(path), num_classes=10, trial=None, limits=limits, num_val=348)  # type: ignore[arg-type]

    assert [chosen(limit).trial.number for limit in (25.0, 10.0, 9.0, 5.0)] == [0, 1, 1, 2]
    assert chosen(10.0).latency == "9.0 ms an image (on the device of its trial, batch of 1)"
    with pytest.raises(UserError, match="within the limits: at most 4 ms an image"):
        chosen(4.0)


def test_a_soup_that_was_compared_with_an_earlier_best_trial_is_not_promoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The search went on and found a better trial than the soup: no limit takes the soup, and --soup is an error."""
    then = record_of([make_trial(0, [0.6]), make_trial(1, [0.7])])
    soup = Combination(
        kind="soup",
        members=(Member(trial=1, count=1), Member(trial=0, count=1)),
        metric="val_accuracy",
        value=0.75,
        cross_fitted=0.72,
        best_trial=1,
        best_value=0.7,
        best_cross_fitted=0.69,
        parameters=2_000_000,
        latency_ms=8.0,
        num_val=60,
        helps=True,
    )
    write_combination(tmp_path, soup, then)
    entry, limits = SimpleNamespace(search_id=then.search_id, path=tmp_path), Limits(latency_ms=9.0)
    monkeypatch.setattr(combined_choice, "read_record", lambda entry: then)
    assert combined_choice.choose_combined(entry, "soup", limits).trial.number == 1  # type: ignore[arg-type]
    assert combined_choice.best_combined(entry, limits) is not None  # type: ignore[arg-type]
    now = replace(then, trials=(*then.trials, make_trial(2, [0.9])))
    monkeypatch.setattr(combined_choice, "read_record", lambda entry: now)
    said = r"compared with trial 1, the best one then \(val_accuracy 0.7000\), and trial 2 has reached 0.9000 since: "
    with pytest.raises(UserError, match=said + "`tlsearch soup made-up` makes it again; or promote the trial, without"):
        combined_choice.choose_combined(entry, "soup", limits)  # type: ignore[arg-type]
    assert combined_choice.best_combined(entry, limits) is None  # type: ignore[arg-type]
    assert "left out: the soup of made-up was compared with trial 1" in caplog.text


def test_a_confirmation_from_before_the_best_trial_is_not_promoted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search went on after ``confirm``: the one look at the test split is not for what was best before."""
    old, new = (replace(make_trial(n, [v]), ended=at) for n, v, at in ((0, 0.7, 10.0), (1, 0.9, 30.0)))
    confirmed = SimpleNamespace(ended=20.0, recommended=0)
    monkeypatch.setattr(choice, "read_confirmed", lambda entry: confirmed)
    monkeypatch.setattr(choice, "_confirmed_winner", lambda *_: (None, old, "confirmed"))
    monkeypatch.setattr(choice, "read_record", lambda entry: record_of([old]))
    assert next(choice._candidates(SimpleNamespace(), None, 24))[2] == "confirmed"  # type: ignore[arg-type]
    monkeypatch.setattr(choice, "read_record", lambda entry: record_of([old, new]))
    said = r"trial 0 of made-up before its best trial 1 ended \(val_accuracy 0.9000\): `tlsearch confirm made-up` "
    with pytest.raises(UserError, match=said):
        next(choice._candidates(SimpleNamespace(), None, 24))  # type: ignore[arg-type]
    assert next(choice._candidates(SimpleNamespace(), 0, 24))[1] == old  # type: ignore[arg-type]
