"""Makes the report of a search: reads study, facts and kept model, writes page and pictures, logs them to MLflow."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from tlsearch.app.catalog.catalog import SearchEntry, as_kept, copies_of
from tlsearch.app.catalog.gather_facts import complete_facts, keep_facts, read_space_file
from tlsearch.app.catalog.stored import read_record
from tlsearch.app.views.outcome import search_alternatives
from tlsearch.app.views.report_settings import log_scaled, search_settings
from tlsearch.core.errors import StorageError, UserError
from tlsearch.core.printable import ENCODING_BYTES
from tlsearch.core.text import command
from tlsearch.core.types import DataSpec, ModelSpec, ParameterImportance, SearchRecord
from tlsearch.results.combine.default_gain import default_gain
from tlsearch.results.leaderboard.leaderboard import LeaderboardRow, leaderboard, rows_csv
from tlsearch.results.leaderboard.search_facts import SearchFacts, measure_latency, this_cpu
from tlsearch.results.report.label_section import LABEL_ERRORS, LabelErrors, label_errors_csv
from tlsearch.results.report.model_section import BestModel
from tlsearch.results.report.page import PAGE, Report, make_report, write_report
from tlsearch.results.report.plots.style import Plot
from tlsearch.results.report.plots.view import View
from tlsearch.search import SearchLock, holding, parameter_importance
from tlsearch.tracking import find_run_ids, log_search_files

logger = logging.getLogger(__name__)

FOLDER = "report"
_LEADERBOARD = "leaderboard.csv"
_NO_IMPORTANCE = "left out here: `tlsearch report` works them out"
_NO_MODEL = "Left out here: `tlsearch report` evaluates the best model over the validation images."


@dataclass(frozen=True, kw_only=True)
class ReportResult:
    """A report that was written.

    Attributes:
        page: The HTML file.
        files: All files by their path in the report's folder, the page among them.
        skipped: What could not be shown, with the reason.
        run_id: The MLflow run that holds the report; None where MLflow is away or was not asked.
    """

    page: Path
    files: Mapping[str, Path]
    skipped: Mapping[str, str]
    run_id: str | None


def write_search_report(
    entry: SearchEntry,
    *,
    directory: Path | None = None,
    with_model: bool = True,
    with_importance: bool = True,
    with_latency: bool = False,
    log: bool = True,
    lock: SearchLock | None = None,
) -> ReportResult:
    """Writes the report of a search.

    The folder and the MLflow run of a search are its one writer's: while another process has it, the report goes to
    ``directory`` alone.

    Args:
        entry: The search.
        directory: Where to; the folder ``report`` of the search if left out.
        with_model: Evaluate the best model over the validation images.
        with_importance: Work out the importance of each parameter.
        with_latency: Measure the latency of every model that was tried, on this machine.
        log: Add the files to the search's MLflow run.
        lock: The search's, where the caller holds it already.

    Raises:
        StorageError: The study is damaged, the folder cannot be written, or another process has the search and no
            ``directory`` was given.
    """
    target = directory or entry.path / FOLDER
    with ExitStack() as stack:
        owner = lock is not None or _takes(entry, stack, target, log=log)
        entry = as_kept(entry)
        record = read_record(entry)
        facts = complete_facts(entry, [trial.config for trial in record.trials])
        if with_latency:
            facts = _add_latency(entry, facts, record)
        if owner:
            keep_facts(entry, facts)
        rows = leaderboard(record, find_run_ids(entry.recorded), facts)
        importance = ParameterImportance(reason=_NO_IMPORTANCE)
        if with_importance:
            importance = parameter_importance(entry.path, entry.moved)
        file = read_space_file(entry)
        view = View(
            record=record,
            rows=rows,
            facts=facts,
            importance=importance,
            log_scaled=log_scaled(file),
            alternatives=search_alternatives(entry, record, facts) if with_model else (),
            gain=default_gain(entry.path, record),
        )
        model, labels, missing = _judged(entry, record, facts) if with_model else (None, None, _NO_MODEL)
        settings = search_settings(entry, file, record)
        report = make_report(view, model, settings=settings, model_missing=missing, labels=labels)
        files = _write(report, rows, labels, target)
        skipped = {plot.name: plot.missing for plot in report.plots if plot.missing}
        if model is None:
            skipped["model"] = missing
        run_id = _log(entry, files) if log and owner else None
    return ReportResult(page=target / PAGE, files=files, skipped=skipped, run_id=run_id)


def search_plots(entry: SearchEntry) -> tuple[Plot, ...]:
    """The report's plots as they are now; writes nothing and opens no model."""
    record = read_record(entry)
    facts = complete_facts(entry, [trial.config for trial in record.trials])
    importance = parameter_importance(entry.path, entry.moved)
    log_scales = log_scaled(read_space_file(entry))
    rows = leaderboard(record, {}, facts)
    return make_report(View(record=record, rows=rows, facts=facts, importance=importance, log_scaled=log_scales)).plots


def _takes(entry: SearchEntry, stack: ExitStack, target: Path, *, log: bool) -> bool:
    """Whether this process holds the search while the stack is open; it need not where the report goes elsewhere."""
    try:
        stack.enter_context(holding(entry.path, "report"))
    except StorageError as error:
        if target.resolve().is_relative_to(entry.path.resolve()):
            raise StorageError(f"{error}; or give --out FOLDER: a report of it as it is now is written there") from None
        if log:
            logger.warning("the report is not added to the search's MLflow run: %s", error)
        return False
    return True


def _write(report: Report, rows: Sequence[LeaderboardRow], labels: LabelErrors | None, target: Path) -> dict[str, Path]:
    tables = {_LEADERBOARD: rows_csv(rows)}
    if labels is not None and labels.judged:
        tables[LABEL_ERRORS] = label_errors_csv(labels)
    try:
        files = write_report(report, target)
        (target / LABEL_ERRORS).unlink(missing_ok=True)  # of an earlier report
        for name, text in tables.items():
            # Names of files may be any bytes.
            (target / name).write_text(text, encoding="utf-8", errors=ENCODING_BYTES)
    except OSError as error:
        raise StorageError(f"the report's folder {target} cannot be written: {error.strerror or error}") from error
    return {**files, **{name: target / name for name in tables}}


def report_at_end(entry: SearchEntry, lock: SearchLock) -> Path | None:
    """The report of a search that has just ended, without what takes long: the best model and the importances.

    Nothing that goes wrong in it may fail a search that went well: that is logged.
    """
    try:
        return write_search_report(entry, with_model=False, with_importance=False, lock=lock).page
    except KeyboardInterrupt:  # the search is done, and the user does not want to wait
        return None
    except Exception as error:
        logger.warning("the report of %s could not be made: %s", entry.search_id, error, exc_info=True)
        return None


def _log(entry: SearchEntry, files: Mapping[str, Path]) -> str | None:
    """Adds the files to the search's own run; the run that a copy finds is that of the search it was copied from."""
    if others := [one for one in copies_of(entry) if one.tracking_uri == entry.tracking_uri]:
        logger.warning(
            "the report is not added to MLflow: %s is a copy of the search in %s, whose run that is; %s gives it "
            "runs of its own",
            entry.path,
            others[0].path,
            command("sync", entry.directory),
        )
        return None
    return log_search_files(entry.recorded, files)


def _add_latency(entry: SearchEntry, facts: SearchFacts, record: SearchRecord) -> SearchFacts:
    file = read_space_file(entry)
    data = DataSpec(source="") if file is None else file.data
    measured = dict(facts.latency_ms) if facts.latency_on == this_cpu() else {}
    for name, config in {trial.config.model: trial.config for trial in record.trials}.items():
        if name not in measured:
            try:
                measured[name] = measure_latency(ModelSpec.of(config, data, max(len(facts.classes), 2)))
            except UserError as error:
                logger.warning("the latency of %s cannot be measured: %s", name, error)
    return replace(facts, latency_ms=measured, latency_on=this_cpu())


def _judged(
    entry: SearchEntry, record: SearchRecord, facts: SearchFacts
) -> tuple[BestModel | None, LabelErrors | None, str]:
    """What only the images tell: the best model evaluated, the doubtful labels, and why the model is missing."""
    from tlsearch.app.views.best_model import best_model, not_kept

    best = record.best
    if best is None:
        return None, None, "No trial has a result."
    file = read_space_file(entry)
    if file is None:
        unknown = "The search's resolved.yaml cannot be read, so its data are not known."
        return None, None, not_kept(entry, best) or unknown
    from tlsearch.app.views.label_errors import find_label_errors
    from tlsearch.data import load_index

    try:
        index = load_index(file.data)
    except UserError as error:
        return None, None, f"The model of trial {best.number} cannot be evaluated: {error}"
    if facts.digest and index.digest != facts.digest:
        return None, None, "The data have changed since the search, so its model is not scored on them."
    model, missing = best_model(entry, record, index)
    return model, find_label_errors(entry, record, file, index), missing
