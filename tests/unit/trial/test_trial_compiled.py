"""resources.compile: the same trial through torch.compile."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
import torch
from torch._dynamo.utils import counters

from tlsearch.core.types import TrialAssignment
from tlsearch.trial import FineTuning

Assign = Callable[..., TrialAssignment]


def losses(assignment: TrialAssignment) -> list[float]:
    """The training losses of a whole trial."""
    trial = FineTuning(assignment)
    found = [trial.step().metrics["train_loss"] for _ in range(assignment.setup.max_epochs)]
    trial.close()
    return found


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on a CPU needs a C++ compiler")
def test_a_compiled_trial_trains_as_the_plain_one_and_a_second_one_compiles_nothing(assign: Assign) -> None:
    plain = losses(assign("plain", depth=1, backbone="resnet18"))
    torch._dynamo.reset()
    counters.clear()
    compiled = losses(assign("compiled", depth=1, backbone="resnet18", setup={"compiled": True}))
    assert compiled == pytest.approx(plain, rel=1e-3)
    graphs = counters["stats"]["unique_graphs"]
    assert graphs > 0
    losses(assign("again", depth=1, backbone="resnet18", seed=2, setup={"compiled": True}))
    assert counters["stats"]["unique_graphs"] == graphs
