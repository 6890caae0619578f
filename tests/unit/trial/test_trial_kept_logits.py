"""Every trial keeps the validation logits of its best epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tlsearch.core.layout import VAL_LOGITS
from tlsearch.core.metrics import METRICS
from tlsearch.core.types import Decision, TrialAssignment
from tlsearch.data import normalise, open_pixels, split_digest
from tlsearch.train import read_model_meta
from tlsearch.train.checkpoint import model_checkpoints
from tlsearch.trial import FineTuning, context, finetuning, keep_start, load_trained, run_trial
from tlsearch.trial.process_cache import held_index

Assign = Callable[..., TrialAssignment]


class Always:
    def report(self, report: object) -> Decision:
        return Decision.CONTINUE


@pytest.mark.parametrize(
    "changes",
    [
        {"head_init": "random"},
        {"head_init": "probe", "head_lr": 10.0},  # no epoch is better than the solved head
        {"depth": 2, "policy": "train", "ema": 0.9, "setup": {"metric": "val_loss"}},
    ],
)
def test_they_are_those_of_the_kept_model(assign: Assign, tmp_path: Path, changes: dict[str, Any]) -> None:
    assignment = assign(**changes)
    outcome = run_trial(assignment, Always())
    model, meta = load_trained(tmp_path / "trial" / "best")
    index = held_index(assignment.setup.data)
    pixels = open_pixels(index, "val", meta.transform, assignment.setup.cache)
    with torch.inference_mode():
        expected = model(normalise(torch.as_tensor(pixels.images), meta.transform)).float()
    kept = load_file(tmp_path / "trial" / VAL_LOGITS)
    assert kept["logits"].dtype == torch.float16
    torch.testing.assert_close(kept["logits"].float(), expected, rtol=1e-3, atol=2e-3)
    assert kept["labels"].tolist() == list(index.splits["val"].labels)
    with safe_open(tmp_path / "trial" / VAL_LOGITS, framework="pt") as opened:
        digest = split_digest(index.splits["val"])
        assert opened.metadata() == {"epoch": str(outcome.best_epoch), "digest": digest}
    value = METRICS[meta.metric].value(kept["logits"].double().numpy(), kept["labels"].long().numpy())
    assert value == pytest.approx(outcome.best_value, abs=1e-3)


def test_a_resumed_trial_leaves_the_same(assign: Assign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetuning, "RUNNING_INTERVAL_S", 0.0)
    run_trial(assign("whole", head_init="probe", setup={"metric": "val_loss"}), Always())
    cut = assign("cut", head_init="probe", setup={"metric": "val_loss"})
    FineTuning(cut).step()  # never closed, as a killed worker
    run_trial(cut, Always())
    whole, resumed = (load_file(tmp_path / name / VAL_LOGITS) for name in ("whole", "cut"))
    assert torch.equal(whole["logits"], resumed["logits"]) and whole["logits"].shape == (21, 3)


def test_a_start_is_kept_with_them_and_a_refit_has_none(assign: Assign, tmp_path: Path) -> None:
    plain, refit = assign("plain", head_init="probe"), assign("refit", head_init="probe")
    keep_start(plain)
    keep_start(replace(refit, setup=replace(refit.setup, refit=True)))  # it has trained on the validation images
    assert (tmp_path / "plain" / VAL_LOGITS).is_file() and not (tmp_path / "refit" / VAL_LOGITS).exists()


def test_too_many_are_not_kept_and_a_line_says_so(
    assign: Assign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in (model_checkpoints, context):
        monkeypatch.setattr(module, "MAX_LOGITS", 21 * 3 - 1)
    trial = FineTuning(assign())
    trial.step()
    trial.close()
    assert read_model_meta(tmp_path / "trial" / "best").epoch == 1
    assert not (tmp_path / "trial" / VAL_LOGITS).exists()
    assert "not kept, so no ensemble can be chosen by them: 21 images of 3 classes are more than 62" in caplog.text


def test_what_float16_cannot_hold_is_clipped() -> None:
    kept = model_checkpoints.half_logits(torch.tensor([[1e6, -1e6, float("inf"), 1.5]]))
    assert kept is not None and kept.tolist() == [[65504.0, -65504.0, 65504.0, 1.5]]
