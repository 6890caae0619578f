"""The best trial, the soup and the ensemble of a search side by side: what each is worth, and what it needs.

The ensemble's worth follows from the kept logits alone, also where none was made; a soup's is known once it was made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tlsearch.core.text import command
from tlsearch.core.types import SearchRecord
from tlsearch.results.combine.combination import Combination, Member, command_of, flag_of, read_combination
from tlsearch.results.combine.kept_logits import read_kept
from tlsearch.results.combine.selection import Selected, select_ensemble

_MOST_VALUES = 20_000_000  # of the best trials: half a minute's selection; `tlsearch ensemble` looks at all of them


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """One of the models that a search can give.

    Attributes:
        members: The trials that it is made of.
        cross_fitted: The metric, chosen on one half of the validation images and scored on the other; None where it is
            not known. Of what was made: the best trial's plus the gain over it, as each has its own halves.
        value: On all validation images, on which it was chosen too.
        parameters: Of the whole model. Of an ensemble that was not made the sum over its members, which is the most
            that it can have.
        latency_ms: Of one image on a CPU, one thread; None where it was not measured.
        made: Whether the model is in the search's folder, or was trained by it.
        helps: Whether it is better than the best trial by the cross-fitted value; False for the trial.
        outdated: Whether the search has found another best trial since; then ``cross_fitted`` is as it was then.
    """

    kind: Literal["trial", "soup", "ensemble", "distilled"]
    members: tuple[Member, ...]
    cross_fitted: float | None
    value: float | None
    parameters: int | None
    latency_ms: float | None
    made: bool
    helps: bool
    outdated: bool = False

    @property
    def members_text(self) -> str:
        """Its trials, with how often each counts where that is not once."""
        return ", ".join(f"{m.trial}" if m.count == 1 else f"{m.trial} x{m.count}" for m in self.members)

    @property
    def parameters_text(self) -> str:
        """In millions; of an ensemble that was not made the most that it can have."""
        return "-" if self.parameters is None else f"{'' if self.made else '≤ '}{self.parameters / 1e6:.1f} M"

    @property
    def latency_text(self) -> str:
        """In milliseconds, as ``parameters_text``."""
        return "-" if self.latency_ms is None else f"{'' if self.made else '≤ '}{self.latency_ms:.1f}"

    def advice(self, search_id: str) -> str:
        """The command that takes it, or makes it."""
        if self.kind == "trial":
            # by its number: alone, `promote` may take the trial that was confirmed, or a solved head
            return _typed("promote", search_id, "--trial", self.members_text)
        if self.outdated:
            return f"compared with an earlier best trial; {command_of(self.kind, search_id)} makes it again"
        if not self.helps:
            return "no better than the best trial"
        return _typed("promote", search_id, f"--{flag_of(self.kind)}") if self.made else _typed("ensemble", search_id)


def _typed(*words: str) -> str:
    return command(*words).strip("`")


def alternatives(
    root: Path, record: SearchRecord, *, parameters: Mapping[str, int], latency_ms: Mapping[str, float]
) -> tuple[Alternative, ...]:
    """The best trial, the soup where one was made, the ensemble where logits were kept or one was made, what it taught.

    Args:
        root: The search's folder.
        record: The search.
        parameters: Of each model with its head, by ``TrialConfig.model``, as far as they are known.
        latency_ms: The same.

    Raises:
        StorageError: A file of a combination is damaged.
    """
    if record.best is None:
        return ()
    kept = read_kept(root, record)
    selected = None
    if len(kept.trials) > 1:
        most = max(2, _MOST_VALUES // max(1, kept.logits[0].size))
        selected = select_ensemble(kept.trials[:most], kept.logits[:most], kept.labels, metric=record.metric)
    soup, ensemble = read_combination(root, "soup"), read_combination(root, "ensemble")
    models = {trial.number: trial.config.model for trial in record.trials}
    best = record.best.number
    current = (one for one in (ensemble, soup) if one is not None and one.outdated_by(record) is None)
    known = next((one.best_cross_fitted for one in (selected, *current) if one is not None), None)
    size, time = parameters.get(models[best]), latency_ms.get(models[best])
    for one in (soup, ensemble):  # measured together: these times can be compared
        if one is not None and one.best_trial == best and one.best_latency_ms is not None:
            size, time = one.best_parameters, one.best_latency_ms
    found = [_trial(best, cross_fitted=known, value=record.best.best_value, parameters=size, latency_ms=time)]
    found += [_of(one, known, record) for one in (soup, ensemble) if one is not None]
    if ensemble is None and selected is not None:
        found.append(_estimated(selected, [models[one.trial] for one in selected.members], parameters, latency_ms))
    distilled = read_combination(root, "distilled")
    return tuple(found if distilled is None else [*found, _of(distilled, known, record)])


def beside_best(made: Combination) -> tuple[Alternative, Alternative]:
    """The best single trial, and what was made of several."""
    trial = _trial(
        made.best_trial,
        cross_fitted=made.best_cross_fitted,
        value=made.best_value,
        parameters=made.best_parameters,
        latency_ms=made.best_latency_ms,
    )
    return trial, _of(made, made.best_cross_fitted)


def _trial(
    number: int, *, cross_fitted: float | None, value: float | None, parameters: int | None, latency_ms: float | None
) -> Alternative:
    return Alternative(
        kind="trial",
        members=(Member(trial=number, count=1),),
        cross_fitted=cross_fitted,
        value=value,
        parameters=parameters,
        latency_ms=latency_ms,
        made=True,
        helps=False,
    )


def _of(made: Combination, single: float | None, record: SearchRecord | None = None) -> Alternative:
    """A combination beside the best trial of now, whose cross-fitted value is ``single``."""
    gain = made.cross_fitted - made.best_cross_fitted
    outdated = record is not None and made.outdated_by(record) is not None
    return Alternative(
        kind=made.kind,
        members=made.members,
        cross_fitted=made.cross_fitted if single is None or outdated else single + gain,
        value=made.value,
        parameters=made.parameters,
        latency_ms=made.latency_ms,
        made=True,
        helps=made.helps,
        outdated=outdated,
    )


def _estimated(
    selected: Selected, models: Sequence[str], parameters: Mapping[str, int], latency_ms: Mapping[str, float]
) -> Alternative:
    sizes = [parameters.get(one) for one in models]
    times = [latency_ms.get(one) for one in models]
    return Alternative(
        kind="ensemble",
        members=selected.members,
        cross_fitted=selected.cross_fitted,
        value=selected.value,
        parameters=None if None in sizes else sum(size or 0 for size in sizes),
        latency_ms=None if None in times else sum(ms or 0.0 for ms in times),
        made=False,
        helps=selected.helps,
    )
