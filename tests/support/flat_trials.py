"""Trials that are all as good as each other but for a thousandth: a search over them plateaus."""

from __future__ import annotations

import math
from dataclasses import replace

from search_doubles import QuickTrial

from tlsearch.core.types import EpochReport, TrialAssignment


class Flat(QuickTrial):
    """Every trial is as good as the others but for a thousandth."""

    def __init__(self, assignment: TrialAssignment) -> None:
        super().__init__(assignment)
        self._number, self._metric = assignment.number, assignment.setup.metric

    def step(self) -> EpochReport:
        report = super().step()
        value = 0.7 + 0.0005 * math.sin(self._number)
        metrics = {"val_accuracy": value, "val_loss": 1 - value}
        self.reports[-1] = replace(report, metrics=metrics, timestamp=1000.0 * self._number + report.epoch)
        return self.reports[-1]
