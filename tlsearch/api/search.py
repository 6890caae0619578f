"""A search as Python sees it: its trials, its study, its models, and the way to production.

It lies in a folder; a `Search` reads it whenever it is asked, so it is never out of date.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.app.catalog.screen_file import decided_screen
from tlsearch.app.catalog.stored import SearchState, read_record, search_state
from tlsearch.core.errors import StorageError, UsageError
from tlsearch.core.text import html_table, plural
from tlsearch.core.types import Screen, SearchRecord, TrialRecord
from tlsearch.display.shown_search import execute_shown, show_progress

if TYPE_CHECKING:
    import optuna
    import pandas

    from tlsearch.app.production.conclude import Confirmation
    from tlsearch.app.production.promote import PromotedModel
    from tlsearch.app.views.report import ReportResult
    from tlsearch.results import Classifier
    from tlsearch.results.combine.combination import Combination
    from tlsearch.results.report.plots.style import Plot

_SHOWN = 10  # trials in a notebook's table


class Trials(tuple[TrialRecord, ...]):
    """Trials of a search, best first; a tuple that prints as a table in a notebook."""

    __slots__ = ()

    def to_pandas(self) -> pandas.DataFrame:
        """One row for each trial, with a column for each parameter.

        Raises:
            ImportError: pandas is not installed.
        """
        import pandas

        rows = [
            {
                "trial": one.number,
                "state": one.state_name,
                "reason": str(one.reason),
                **one.params,
                "best_value": one.best_value,
                "best_epoch": one.best_epoch,
                "epochs_run": one.epochs_run,
            }
            for one in self
        ]
        return pandas.DataFrame(rows)

    def _repr_html_(self) -> str:
        shown = self[:_SHOWN]
        names = list(dict.fromkeys(name for one in shown for name in one.params))
        rows = [
            (one.number, one.state_name, _figure(one.best_value), one.best_epoch, one.epochs_run)
            + tuple(one.params.get(name, "") for name in names)
            for one in shown
        ]
        more = f", the best {_SHOWN}" if len(self) > _SHOWN else ""
        heads = ("trial", "state", "best value", "at epoch", "epochs", *names)
        return html_table(heads, rows, caption=f"{plural(len(self), 'trial')}{more}")


@dataclass(frozen=True)
class Search:
    """A search in its folder, finished or not."""

    entry: SearchEntry

    @property
    def id(self) -> str:
        """Its name, as every command takes it."""
        return self.entry.search_id

    @property
    def directory(self) -> Path:
        """Its folder, which holds everything about it."""
        return self.entry.path

    @property
    def status(self) -> SearchState:
        """``running``, ``finished``, ``interrupted`` (``resume`` goes on with it) or ``failed``."""
        return search_state(self.entry, self.record)

    @property
    def record(self) -> SearchRecord:
        """The whole search as its study has it now, with the report of every epoch."""
        return read_record(self.entry)

    @property
    def screen(self) -> Screen | None:
        """What the screen of its backbones said, where the space asks for one and it is decided."""
        return decided_screen(self.entry)

    @property
    def best(self) -> TrialRecord | None:
        """The best trial, complete or pruned; None before the first report."""
        return self.record.best

    @property
    def front(self) -> Sequence[TrialRecord]:
        """The trials that no other one beats in both objectives, the cheapest first; empty with one objective."""
        return self.record.front

    def trials(self) -> Trials:
        """All trials, best first; those without a result last."""
        from tlsearch.results import leaderboard

        record = self.record
        by_number = {trial.number: trial for trial in record.trials}
        return Trials(by_number[row.trial] for row in leaderboard(record, {}))

    @property
    def study(self) -> optuna.Study:
        """A snapshot of the Optuna study; only the search itself writes to it.

        Raises:
            StorageError: The search has no study yet, or a damaged one.
        """
        from tlsearch.search.study.storage import open_for_reading

        study = open_for_reading(self.entry.folder, self.entry.moved)
        if study is None:
            raise StorageError(f"the search {self.id} has no study yet: it has not begun its first trial")
        return study.as_optuna()

    def model(self, trial: int | None = None, *, device: str = "auto") -> Classifier:
        """A trained model that is kept, the best trial's by default: ``search.model().predict(["a.jpg"])``.

        Raises:
            StorageError: The trial's model is not kept.
        """
        from tlsearch.app.views.outcome import find_checkpoint
        from tlsearch.results import load_model

        name = str(self.directory) if trial is None else f"{self.directory}:{trial}"
        return load_model(find_checkpoint(name), device=device)

    def confirm(self, *, top: int = 3, seeds: int = 3, address: str = "local", progress: bool = True) -> Confirmation:
        """Trains the best configurations again with several seeds and tests which is really the best.

        Returns:
            The ``outcome``, the ``recommended`` trial, the ``verdict`` and the configurations; ``alternatives`` has the
            best trial, the soup and the ensemble of the search side by side.

        Raises:
            KeyboardInterrupt: Interrupted; the same call goes on.
        """
        _at_least(1, top=top)
        _at_least(2, seeds=seeds)
        from tlsearch.app.production.conclude import beside_others, conclude
        from tlsearch.app.production.confirm import prepare_confirm

        with prepare_confirm(self.entry, top=top, seeds=seeds, address=address) as confirmed:
            shown = show_progress(confirmed.prepared, name=confirmed.name) if progress else None
            end = execute_shown(confirmed.prepared, shown)
            if end.reason == "interrupted":
                raise KeyboardInterrupt("confirm was interrupted; the same call goes on")
            return beside_others(self.entry, conclude(confirmed))

    def ensemble(
        self,
        *,
        max_models: int = 5,
        max_latency_ms: float | None = None,
        max_params: int | None = None,
        address: str = "local",
    ) -> Combination:
        """Combines several trials into one model that averages their predictions, where that is better than the best.

        Args:
            max_models: Number of trials that it has at most.
            max_latency_ms: Of the whole model for one image (ms, CPU).
            max_params: Of the whole model.
            address: Where trials that were not kept are trained again.

        Returns:
            The members and what they are worth; ``helps`` is False where the model is that of the best trial.
        """
        _at_least(1, max_models=max_models)
        from tlsearch.app.combined.make_ensemble import make_ensemble

        return make_ensemble(
            self.entry, max_models=max_models, max_latency_ms=max_latency_ms, max_params=max_params, address=address
        )

    def soup(self, *, max_models: int = 8, runs: int = 4, address: str = "local") -> Combination:
        """Averages the weights of the best trials into one model, where that is better than the best trial.

        Args:
            max_models: Number of trials to try, from the best on.
            runs: Number of other seeds that the best of them is trained with, for the average.
            address: Where trials are trained.

        Returns:
            The members and what they are worth; ``helps`` is False where the model is that of the best trial.
        """
        _at_least(2, max_models=max_models)
        _at_least(0, runs=runs)
        from tlsearch.app.combined.make_soup import make_soup

        return make_soup(self.entry, max_models=max_models, runs=runs, address=address)

    def promote(
        self,
        *,
        trial: int | None = None,
        combined: Literal["ensemble", "soup", "distilled"] | None = None,
        alias: str = "champion",
        max_latency_ms: float | None = None,
        max_params: int | None = None,
        refit: bool = False,
        without_test: bool = False,
        reuse_test: bool = False,
    ) -> PromotedModel:
        """Evaluates the best model once on the sealed test split and registers it in MLflow.

        Args:
            trial: None for the winner of `confirm`, or the best trial.
            combined: Promote the ensemble or the soup that was made of the search, or a model that is now distilled
                from the ensemble, instead of a trial.
            alias: The registry's alias for the new version.
            max_latency_ms: Only models that take at most this long for one image (ms, CPU).
            max_params: Only models with at most this many parameters.
            refit: Train on train and val together before.
            without_test: Register without a test.
            reuse_test: Use a test split that another model was tested on; the model card says so.

        Returns:
            The registered model: ``uri``, ``version``, ``value``, ``test``, ``card`` and more.
        """
        from tlsearch.app.combined.ensemble_costs import Limits
        from tlsearch.app.production.promote import PromoteOptions, promote

        limits = Limits(latency_ms=max_latency_ms, parameters=max_params)
        options = PromoteOptions(
            trial=trial,
            combined=combined,
            alias=alias,
            limits=limits,
            refit=refit,
            without_test=without_test,
            reuse_test=reuse_test,
        )
        return promote(self.entry, options)

    def report(self, directory: str | Path | None = None, *, log: bool = True) -> ReportResult:
        """Writes the report; its ``page`` is one HTML file that needs no network.

        Args:
            directory: Where to; the search's folder if left out.
            log: Add it to the search's MLflow run.
        """
        from tlsearch.app.views.report import write_search_report

        return write_search_report(self.entry, directory=None if directory is None else Path(directory), log=log)

    def plots(self) -> Mapping[str, Plot]:
        """The report's plots by name; each is a picture in a notebook, and has ``svg`` and ``png``."""
        from tlsearch.app.views.report import search_plots

        return {plot.name: plot for plot in search_plots(self.entry) if not plot.missing}

    def __repr__(self) -> str:
        record = self.record
        best = record.best
        found = (
            "no result yet" if best is None else f"best {record.metric} {_figure(best.best_value)}, trial {best.number}"
        )
        return f"Search({self.id!r}, {self.status}, {plural(len(record.trials), 'trial')}, {found})"

    def _repr_html_(self) -> str:
        return (
            html_table(("search", self.id), [("", repr(self)), ("folder", self.directory)])
            + self.trials()._repr_html_()
        )


def _at_least(lowest: int, **counts: int) -> None:
    """Holds the bounds that the options of the command line have."""
    for name, count in counts.items():
        if count < lowest:
            raise UsageError(f"{name} must be at least {lowest}, not {count}")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
