"""The one look at a test split: on record in the search's folder and in MLflow before an image of it is decoded."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.app.production.choice import Choice
from tlsearch.app.production.ready_model import ReadyModel
from tlsearch.core.codec import to_plain
from tlsearch.core.crash import crash_point
from tlsearch.core.errors import DataError
from tlsearch.core.files import folder_bytes, write_atomically
from tlsearch.data import ImageIndex
from tlsearch.results import load_model, logits_on
from tlsearch.results.promotion.multi_label_evidence import AnyEvidence, gather_answers, read_evidence
from tlsearch.results.promotion.test_evaluation import compare_with_single, gather_evidence
from tlsearch.results.promotion.test_split import (
    USES,
    TestSplit,
    TestUse,
    checkpoint_digest,
    hash_test_split,
    other_uses,
    read_uses,
    uses_text,
)
from tlsearch.tracking.registry.rehearsal import rehearse_promotion
from tlsearch.tracking.stored_search import read_test_uses, write_test_uses

_COPIES = 3  # of a checkpoint in the temporary folder and in MLflow's, at one time


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the test split says of a model; ``missing`` is why nothing, ``notes`` are for the card."""

    test: AnyEvidence | None
    missing: str = ""
    notes: tuple[str, ...] = ()


def sealed_split(index: ImageIndex) -> TestSplit:
    """The test split, which no model has seen.

    Raises:
        DataError: There is none, or it shares images with train or val.
    """
    split = hash_test_split(index)
    hint = "--without-test registers the model without test evidence, and its card says so"
    if split is None:
        raise DataError(f"a model is promoted with evidence from a test split, and the data have none; {hint}")
    if split.overlap:
        raise DataError(f"the test split must share no image with train or val; {split.overlap_text()}; {hint}")
    return split


def test_evidence(
    entry: SearchEntry,
    choice: Choice,
    index: ImageIndex,
    ready: ReadyModel,
    split: TestSplit,
    uses: list[TestUse],
    *,
    alias: str,
    reuse: bool,
) -> Evidence:
    """Looks at the test split, once; for a model that has looked before, what it saw.

    Args:
        ready: The model; of a combination the same look scores its ``single`` trial.
        uses: Those on record; this one is added.
        alias: That the model is to get: MLflow must take it, before an image is opened.
        reuse: Look although another model has; the card says so.

    Raises:
        DataError: Another model has looked.
        TrackingError: MLflow refuses the promotion.
    """
    checkpoint = ready.checkpoint
    model = checkpoint_digest(checkpoint)
    others = other_uses(uses, digest=split.digest, model=model)
    if others and not reuse:
        raise DataError(
            f"a test split is looked at once; this one was used {when_text(others[0])}, and a second look would choose "
            "by it. --without-test registers the model without test evidence; --reuse-test looks again, and the card "
            "says so"
        )
    notes = tuple(
        f"**the test split was used before**, {when_text(one)}: the test figures are optimistic" for one in others
    )
    mine = next((one for one in uses if one.digest == split.digest and one.model == model), None)
    if mine is not None and mine.evidence is not None:
        return Evidence(test=read_evidence(mine.evidence), notes=notes)
    if mine is None:
        mine = TestUse(
            digest=split.digest,
            search_id=choice.entry.search_id,
            trial=choice.trial.number,
            model=model,
            at=time.time(),
        )
        uses.append(mine)
    rehearse_promotion(entry.recorded, alias=alias, num_bytes=_COPIES * folder_bytes(checkpoint))
    record_uses(entry, split, uses)
    crash_point("test_recorded")
    found = _look(choice, index, ready)
    done = replace(mine, evidence=to_plain(found))
    write_atomically(entry.path / USES, uses_text([done if one == mine else one for one in uses]))
    crash_point("test_evaluated")
    return Evidence(test=found, notes=notes)


def _look(choice: Choice, index: ImageIndex, ready: ReadyModel) -> AnyEvidence:
    """What the model says about the test split; of a combination beside what its single trial says."""
    logits = logits_on(load_model(ready.checkpoint), index, "test").double().numpy()
    labels, classes = index.label_array("test"), index.classes
    temperature, thresholds = ready.calibration.temperature, ready.calibration.thresholds
    if thresholds:
        return gather_answers(logits, labels, classes=classes, temperature=temperature, thresholds=thresholds)
    found = gather_evidence(logits, labels, classes=classes, temperature=temperature)
    if ready.single is None:
        return found
    single = logits_on(load_model(ready.single), index, "test").double().numpy()
    return replace(found, against=compare_with_single(logits, single, labels, trial=choice.trial.number))


def uses_on_record(entry: SearchEntry, split: TestSplit) -> list[TestUse]:
    """From the search's folder and from MLflow; a use is known by its split and model."""
    here = read_uses(entry.path)
    there = [
        TestUse(**one)  # type: ignore[arg-type]
        for one in read_test_uses(entry.tracking_uri, experiment=entry.experiment, digest=split.digest)
    ]
    known = {(one.digest, one.model) for one in here}
    return [*here, *(one for one in there if (one.digest, one.model) not in known)]


def record_uses(entry: SearchEntry, split: TestSplit, uses: list[TestUse]) -> None:
    """In both places."""
    write_atomically(entry.path / USES, uses_text(uses))
    briefs = [one.brief() for one in uses if one.digest == split.digest]
    write_test_uses(entry.tracking_uri, experiment=entry.experiment, digest=split.digest, uses=briefs)


def when_text(use: TestUse) -> str:
    """When a look was, and for which model, in words."""
    at = time.strftime("%Y-%m-%d %H:%M", time.localtime(use.at))
    return f"on {at} for trial {use.trial} of {use.search_id}"
