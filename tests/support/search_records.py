"""Made-up searches of any size, as their studies would tell them."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from tlsearch.core.types import (
    EpochReport,
    Objective,
    Scalar,
    SearchRecord,
    TrialConfig,
    TrialRecord,
    TrialState,
    best_seen,
)
from tlsearch.results.leaderboard.search_facts import SearchFacts

BACKBONES = ("resnet18", "mobilenet_v2", "efficientnet_b0", "timm/tf_efficientnet_lite0")
RUNGS = (1, 3, 9)


def make_facts(num_validation: int = 348) -> SearchFacts:
    """Sizes that go with ``make_record``."""
    return SearchFacts(
        classes=tuple(f"class {n}" for n in range(16)),
        images={"train": 996, "val": num_validation, "test": 344},
        digest="d",
        parameters={name: 2_500_000 + 3_000_000 * n for n, name in enumerate(BACKBONES)},
        trainable={name: {depth: 1000 * (depth + 1) for depth in range(6)} for name in BACKBONES},
        max_epochs=20,
        rungs=RUNGS,
    )


def make_record(num_trials: int, *, metric: str = "val_accuracy", max_epochs: int = 20, seed: int = 0) -> SearchRecord:
    """A search over a conditional space, cut by ASHA; a few trials diverge and a few fail."""
    rng = random.Random(seed)
    entered: dict[int, list[float]] = {}
    trials = [_trial(number, rng, metric, max_epochs, entered) for number in range(num_trials)]
    return record_of(trials, metric=metric)


def record_of(trials: Sequence[TrialRecord], *, metric: str = "val_accuracy") -> SearchRecord:
    """A search of these trials."""
    return SearchRecord(
        search_id="made-up",
        experiment="made <up> & co",
        metric=metric,
        directory="/nowhere",
        trials=tuple(trials),
    )


def make_trial(
    number: int,
    values: Sequence[float],
    *,
    state: TrialState = TrialState.COMPLETE,
    reason: str = "completed",
    metric: str = "val_accuracy",
    error: str = "",
    params: dict[str, Scalar] | None = None,
    seconds: float = 1.0,
    source: str = "pixels",
) -> TrialRecord:
    """A trial with these values, one for each epoch."""
    params = {"backbone": "resnet18", "unfreeze_depth": 0, "head_lr": 1e-3} | (params or {})
    start = 1.7e9 + 10 * number
    reports = tuple(
        EpochReport(
            epoch=epoch,
            metrics={metric: value, "epoch_seconds": seconds},
            timestamp=start + seconds * epoch,
            source=source,
            source_reason="made up",
        )
        for epoch, value in enumerate(values, start=1)
    )
    best_value, best_epoch = best_seen(reports, Objective.of(metric))
    return TrialRecord(
        number=number,
        state=state,
        reason=reason,
        params=params,
        config=TrialConfig(backbone=str(params["backbone"]), unfreeze_depth=int(params["unfreeze_depth"] or 0)),
        seed=number,
        best_value=best_value,
        best_epoch=best_epoch,
        reports=reports,
        error=error,
        started=start,
        ended=start + seconds * len(values),
    )


def _params(rng: random.Random) -> dict[str, Scalar]:
    params: dict[str, Scalar] = {
        "backbone": rng.choice(BACKBONES),
        "unfreeze_depth": rng.randint(0, 5),
        "head_lr": 10 ** rng.uniform(-4, -1),
        "augmentation": rng.choice(["none", "light"]),
    }
    if params["unfreeze_depth"]:
        params |= {"backbone_lr": 10 ** rng.uniform(-6, -3), "bn_policy": rng.choice(["frozen", "train"])}
    return params


def _trial(
    number: int, rng: random.Random, metric: str, max_epochs: int, entered: dict[int, list[float]]
) -> TrialRecord:
    params = _params(rng)
    depth = int(params["unfreeze_depth"] or 0)
    level = 0.5 + 0.04 * depth - 0.05 * abs(math.log10(float(params["head_lr"] or 1)) + 2.5) + rng.gauss(0, 0.02)
    options = {
        "params": params,
        "seconds": 0.05 if depth == 0 else 2.0 * depth,
        "source": "features" if depth < 3 and params["augmentation"] == "none" else "pixels",
        "metric": metric,
    }
    if rng.random() < 0.01:
        error = "Traceback\nRuntimeError: <planted> & escaped"
        return make_trial(number, [], state=TrialState.FAILED, reason="error", error=error, **options)  # type: ignore[arg-type]
    values: list[float] = []
    reason = "completed"
    for epoch in range(1, max_epochs + 1):
        accuracy = min(0.99, max(0.01, level * (1 - 0.6 * 0.6**epoch) + rng.gauss(0, 0.008)))
        values.append(-2 * math.log(accuracy) if Objective.of(metric).mode == "min" else accuracy)
        if rng.random() < 0.003:
            reason = "diverged"
            break
        if epoch in RUNGS:
            rung = entered.setdefault(epoch, [])
            rung.append(accuracy)
            if sum(other > accuracy for other in rung) >= math.ceil(len(rung) / 3):
                reason = "asha"
                break
    state = TrialState.COMPLETE if reason == "completed" else TrialState.PRUNED
    return make_trial(number, values, state=state, reason=reason, **options)  # type: ignore[arg-type]
