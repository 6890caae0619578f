"""Real trials that are made to fail in given ways, and write down what has happened to them.

Importable by Ray's workers. Which trial does what is read from ``acts.json`` in the search's folder (by number);
what happened is appended to ``happened.jsonl`` there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tlsearch.core.types import EpochReport, TrialAssignment


def write_acts(root: Path, acts: dict[int, dict[str, Any]]) -> None:
    """``{"kind": nan | error | room, "epoch": 2, "rows": 4, "times": 1}`` by trial number."""
    (root / "acts.json").write_text(json.dumps(acts))


def what_happened(root: Path) -> list[dict[str, Any]]:
    """Every line of the log, in order."""
    return [json.loads(line) for line in (root / "happened.jsonl").read_text().splitlines()]


class ActingTrial:
    """A fine-tuning; its factory, too."""

    def __init__(self, assignment: TrialAssignment) -> None:
        from tlsearch.trial import FineTuning

        self._number, self._metric = assignment.number, assignment.setup.metric
        self._root = Path(assignment.directory).parents[1]
        acts = json.loads((self._root / "acts.json").read_text())
        self._act = acts.get(str(self._number), {})
        self._trial = FineTuning(assignment)
        if self._act.get("kind") == "room":
            self._trial.model.head.register_forward_pre_hook(self._allocate)

    @property
    def epochs_done(self) -> int:
        return self._trial.epochs_done

    @property
    def reports(self) -> Sequence[EpochReport]:
        return self._trial.reports

    def step(self) -> EpochReport:
        try:
            self._misbehave(self.epochs_done + 1)
            report = self._trial.step()
        except Exception as error:
            self._log(type(error).__name__, self.epochs_done + 1)
            raise
        self._log("epoch", report.epoch, report.metrics[self._metric])
        return report

    def save(self) -> None:
        self._trial.save()

    def close(self) -> None:
        self._trial.close()

    def _misbehave(self, epoch: int) -> None:
        import torch

        if epoch != self._act.get("epoch", 1):
            return
        if self._act.get("kind") == "nan":
            with torch.no_grad():
                next(self._trial.model.head.parameters()).fill_(torch.nan)
        if self._act.get("kind") == "error" and self._tries() < self._act.get("times", 99):
            raise RuntimeError("no such thing")

    def _allocate(self, module: Any, inputs: tuple[Any, ...]) -> None:
        """An allocator with room for so many rows of a forward pass with gradients."""
        import torch

        if torch.is_grad_enabled() and module.training and len(inputs[0]) > self._act["rows"]:
            raise torch.OutOfMemoryError(f"room for {self._act['rows']} rows, not for {len(inputs[0])}")

    def _tries(self) -> int:
        path = self._root / "happened.jsonl"
        lines = what_happened(self._root) if path.exists() else []
        return sum(line["number"] == self._number and line["what"] == "RuntimeError" for line in lines)

    def _log(self, what: str, epoch: int, value: float | None = None) -> None:
        with open(self._root / "happened.jsonl", "a") as file:
            file.write(json.dumps({"number": self._number, "what": what, "epoch": epoch, "value": value}) + "\n")
