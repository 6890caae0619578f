"""Writes the search's own run: its start and end, its data, its progress, its description, its best model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlsearch.core.types import DataSetFacts
from tlsearch.tracking.registry.logged_models import ModelShelf
from tlsearch.tracking.runs import BEST_MODEL, NOTE, STATE, KnownRun, RunTable
from tlsearch.tracking.sink import entries as e
from tlsearch.tracking.sink.batch import log, log_texts, progress_points, set_running
from tlsearch.tracking.sink.best_models import BEST_TRIAL, COMPLETE

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

_BEGIN, _END = "<!-- written by tlsearch -->", "<!-- end of what tlsearch writes -->"
_DIGEST = 16  # hex digits; MLflow takes at most 36 characters
_MAX_NAME = 500
_STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


@dataclass(frozen=True, kw_only=True)
class Session:
    """What is known of the store while it answers."""

    client: MlflowClient
    experiment_id: str
    runs: RunTable
    shelf: ModelShelf


class SearchRun:
    """What was said of the search so far; every method may be called again and changes nothing then.

    Args:
        metric: The search's metric.
    """

    def __init__(self, metric: str) -> None:
        self._metric = metric
        self._progress: e.SearchProgress | None = None
        self._description = ""

    @property
    def _best_trial(self) -> int | None:
        best = self._progress.metrics.get(BEST_TRIAL) if self._progress else None
        return None if best is None else int(best)

    def start(self, session: Session, entry: e.SearchStart) -> None:
        """The search starts or goes on."""
        parent = session.runs.parent(at=entry.at)
        set_running(session.client, parent)
        self._description = entry.description
        note = _note(session.client, parent)
        tags = {} if has_block(note) else self._described(session, note)  # an earlier start's knows the best trial
        log(session.client, parent, params=entry.params, tags={STATE: "running", **tags})
        log_texts(session.client, parent, entry.artifacts)
        if entry.data is not None:
            session.client.log_inputs(parent.run_id, datasets=[dataset_input(entry.data)])

    def write_progress(self, session: Session, entries: Sequence[e.SearchProgress]) -> None:
        """Writes the steps that the run does not have: the study's time of a trial's end is not quite the tracker's."""
        parent = session.runs.parent(at=entries[0].at)
        if parent.steps is None:
            parent.steps = {point.step for point in session.client.get_metric_history(parent.run_id, COMPLETE)}
        new = {entry.ended: entry for entry in entries if entry.ended not in parent.steps}
        points = [point for entry in new.values() for point in progress_points(entry)]
        if points:
            log(session.client, parent, params={}, points=points, tags={})
            parent.steps |= new.keys()
        self._progress = entries[-1]

    def name_best_model(self, session: Session, number: int) -> None:
        """Tags the search's run with the model of a trial, if that is the best one now."""
        model = session.shelf.models.get(number)
        if model is not None and number == self._best_trial:
            parent = session.runs.parent(at=0.0)
            session.client.set_tag(parent.run_id, BEST_MODEL, f"models:/{model.model_id}")

    def end(self, session: Session, entry: e.SearchEnd) -> None:
        """The search ends."""
        parent = session.runs.parent(at=entry.at)
        log_texts(session.client, parent, entry.artifacts)
        tags = {STATE: entry.status, **self._described(session, _note(session.client, parent))}
        log(session.client, parent, params={}, tags=tags)
        if self._best_trial in session.shelf.models:
            session.shelf.name_in(parent.run_id, session.shelf.models[self._best_trial].model_id)
        parent.status = _STATUS[entry.status]
        session.client.set_terminated(parent.run_id, status=parent.status, end_time=int(entry.at * 1000))

    def _described(self, session: Session, note: str) -> dict[str, str]:
        """The run's description with our block as of now."""
        if not self._description:
            return {}
        parts, best = [self._description], self._best_trial
        if best is not None and self._progress is not None:
            run, model = session.runs.trials.get(best), session.shelf.models.get(best)
            line = best_line(
                self._metric,
                self._progress.metrics[f"best_{self._metric}"],
                trial=best,
                experiment_id=session.experiment_id,
                run_id=run.run_id if run else None,
                model_id=model.model_id if model else "",
            )
            parts.insert(0, line)
        return {NOTE: with_block(note, "\n\n".join(parts))}


def _note(client: MlflowClient, run: KnownRun) -> str:
    """The run's description, which a person may have changed."""
    return str(client.get_run(run.run_id).data.tags.get(NOTE, ""))


def with_block(note: str, text: str) -> str:
    """A note with our block replaced, or begun where the note is empty; without a block it stays as it is.

    Args:
        note: What the run's description says now; a person may have changed it.
        text: What the block is to say, in Markdown.
    """
    block = f"{_BEGIN}\n{text.strip()}\n{_END}"
    if not note.strip():
        return block
    head, begin, rest = note.partition(_BEGIN)
    _, end, tail = rest.partition(_END)
    return f"{head}{block}{tail}" if begin and end else note


def has_block(note: str) -> bool:
    """Whether a note holds our block."""
    return _BEGIN in note


def best_line(metric: str, value: float, *, trial: int, experiment_id: str, run_id: str | None, model_id: str) -> str:
    """A line on the best trial; its links are those of MLflow's own pages, wherever its server stands."""
    page = f"#/experiments/{experiment_id}"
    name = f"trial {trial}" if run_id is None else f"[trial {trial}]({page}/runs/{run_id})"
    model = f", [its model]({page}/models/{model_id}) is `models:/{model_id}`" if model_id else ""
    return f"**Best: {name}**, `{metric}` {value:.4f}{model}"


def dataset_input(data: DataSetFacts) -> DatasetInput:
    """The data set as an input that a run was trained on; logged again it is the same."""
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    source_type, source = _source(data)
    profile = {"num_rows": sum(data.images.values()), "num_classes": data.num_classes}
    profile |= {f"num_{split}": count for split, count in data.images.items()}
    dataset = Dataset(
        name=data.name[:_MAX_NAME],
        digest=data.digest[:_DIGEST],
        source_type=source_type,
        source=json.dumps(source),
        profile=json.dumps(profile),
    )
    return DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, "training")])


def _source(data: DataSetFacts) -> tuple[str, dict[str, str]]:
    """MLflow's name for the kind of source, and what its UI makes a link of."""
    if data.source.startswith("s3://"):
        return "s3", {"uri": data.source}
    if data.source.startswith(("http://", "https://")):
        return "http", {"url": data.source}
    if data.source_type == "huggingface" and not data.source.startswith("/"):
        return "hugging_face", {"path": data.source}
    return "local", {"uri": data.source}
