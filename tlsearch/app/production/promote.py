"""Carries the winner of a search into the registry: chosen, evaluated once on the sealed test split, registered.

The order makes a death at any point harmless: the use of the test split is on record before an image of it is decoded,
the evidence is kept before anything is registered, and the alias is set last. The same call again goes on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.app.catalog.gather_facts import read_facts
from tlsearch.app.catalog.stored import stored_file
from tlsearch.app.production.choice import Choice, Limits, choose, find_or_train, train_on_all
from tlsearch.app.production.conclude import read_confirmed
from tlsearch.app.production.test_uses import Evidence, sealed_split, test_evidence, uses_on_record
from tlsearch.app.searches.input_digests import refuse_changed_inputs
from tlsearch.config import SpaceFile
from tlsearch.core.errors import UserError
from tlsearch.core.types import WeightsSource
from tlsearch.core.user_folders import scratch_folder
from tlsearch.data import ImageIndex, load_index
from tlsearch.model import weights_card
from tlsearch.results import SERVED_CODE, load_model, logits_on
from tlsearch.results.inference.labelled import check_classes
from tlsearch.results.promotion.model_card import CardFacts, model_card
from tlsearch.results.promotion.test_evaluation import TestEvidence
from tlsearch.results.promotion.test_split import checkpoint_digest
from tlsearch.results.stats.calibration import fit_temperature
from tlsearch.search import holding
from tlsearch.tracking.registry.versions import Promoted, Promotion, register_model
from tlsearch.train import copy_with_temperature, read_model_meta

_MAX_ALIAS = 255 - len("-previous")  # MLflow's own limit, for the alias that keeps the version before


@dataclass(frozen=True, kw_only=True)
class PromoteOptions:
    """What the user said on the command line of ``promote``.

    Attributes:
        trial: None for the confirmed or best one.
        refit: Train on train and val together before.
        without_test: Register without looking at the test split.
        reuse_test: Look at it although another model has; the card says so.
    """

    trial: int | None = None
    alias: str = "champion"
    limits: Limits = field(default_factory=Limits)
    refit: bool = False
    without_test: bool = False
    reuse_test: bool = False


@dataclass(frozen=True, kw_only=True)
class PromotedModel:
    """A model that ``promote`` has registered.

    Attributes:
        model: Its name in the registry; ``uri`` is its address by the alias.
        previous: The version that the alias named before; None where there was none.
        trial: Its trial in ``search_id``, chosen for ``reason``; ``value`` is the metric there.
        refit: Whether it was trained on train and val together.
        test: None where the test split was not looked at.
        card: The model card, in Markdown.
    """

    model: str
    version: str
    alias: str
    previous: str | None
    uri: str
    mlflow_run_id: str
    search_id: str
    trial: int
    reason: str
    metric: str
    value: float | None
    refit: bool
    temperature: float
    test: TestEvidence | None
    card: str


def promote(entry: SearchEntry, options: PromoteOptions) -> PromotedModel:
    """Promotes a model of a search.

    Raises:
        UserError: No trial fits, or the alias is none.
        DataError: Images or weights have changed since the search; classes differ; or the test split is missing, used
            before, or shares images with train or val.
        TrackingError: MLflow cannot be reached, or refuses.
    """
    _check_alias(options.alias)
    with ExitStack() as stack:
        stack.enter_context(holding(entry.path, "promote"))
        return _promote(entry, options, stack)


def _check_alias(alias: str) -> None:
    """MLflow would refuse it too, but only after the test split was opened."""
    legal = re.fullmatch(r"[A-Za-z0-9_-]+", alias) and len(alias) <= _MAX_ALIAS
    if legal and not re.fullmatch(r"latest|v\d+|(.*-)?previous", alias, re.I):
        return
    raise UserError(
        f"an alias has letters, digits, _ and - only, at most {_MAX_ALIAS}; `latest` and `v1` are MLflow's own names, "
        f"and `previous` keeps the version before; not {alias!r}"
    )


def _promote(entry: SearchEntry, options: PromoteOptions, stack: ExitStack) -> PromotedModel:
    file, _ = stored_file(entry, "so nothing can be promoted")
    index = load_index(file.data)
    check_classes(read_facts(entry).classes or index.classes, index.classes)
    refuse_changed_inputs(entry, file, index, purpose="its models cannot be scored and promoted")
    num_classes, num_val = len(index.classes), len(index.splits["val"])
    choice = choose(entry, file, num_classes=num_classes, trial=options.trial, limits=options.limits, num_val=num_val)
    if choice.entry.path != entry.path:
        stack.enter_context(holding(choice.entry.path, "promote"))
    # A head that is solved takes no step that val could judge: it is solved on all images at no cost.
    options = replace(options, refit=options.refit or choice.trial.best_epoch == 0)
    split = None if options.without_test else sealed_split(index)
    uses = uses_on_record(entry, split) if split else []
    chosen = find_or_train(choice, file)
    check_classes(read_model_meta(chosen).classes, index.classes)
    temperature = _fit_temperature(chosen, index)  # before a refit: val must be unseen
    checkpoint = train_on_all(choice, file) if options.refit else chosen
    if split is None:
        evidence = Evidence(test=None, missing="it was promoted without looking at a test split, as was asked for")
    else:
        evidence = test_evidence(
            entry,
            choice,
            index,
            checkpoint,
            split,
            uses,
            temperature=temperature,
            alias=options.alias,
            reuse=options.reuse_test,
        )
    promoted, card = _register(entry, file, index, choice, checkpoint, temperature, evidence, options)
    meta = read_model_meta(checkpoint)
    return PromotedModel(
        model=promoted.name,
        version=promoted.version,
        alias=promoted.alias,
        previous=promoted.previous,
        uri=f"models:/{promoted.name}@{promoted.alias}",
        mlflow_run_id=promoted.run_id,
        search_id=choice.entry.search_id,
        trial=choice.trial.number,
        reason=choice.reason,
        metric=meta.metric,
        value=choice.trial.best_value,
        refit=options.refit,
        temperature=temperature,
        test=evidence.test,
        card=card,
    )


def _fit_temperature(checkpoint: Path, index: ImageIndex) -> float:
    logits = logits_on(load_model(checkpoint), index, "val").double().numpy()
    return fit_temperature(logits, np.array(index.splits["val"].labels, dtype=np.int64))


def _register(
    entry: SearchEntry,
    file: SpaceFile,
    index: ImageIndex,
    choice: Choice,
    checkpoint: Path,
    temperature: float,
    evidence: Evidence,
    options: PromoteOptions,
) -> tuple[Promoted, str]:
    meta = read_model_meta(checkpoint)
    source = file.weights.get(meta.backbone, WeightsSource())
    card = model_card(
        CardFacts(
            name=entry.experiment,
            meta=meta,
            search_id=choice.entry.search_id,
            trial=choice.trial.number,
            chosen=choice.reason,
            data_source=index.source,
            data_digest=index.digest,
            images={name: len(split) for name, split in index.splits.items()},
            refit=options.refit,
            licence=_licence(meta.backbone, source),
            parameters=choice.parameters,
            temperature=temperature,
            latency=choice.latency,
            confirmed=read_confirmed(entry),
            evidence=evidence.test,
            no_test=evidence.missing,
            test_notes=evidence.notes,
        )
    )
    files = {"evidence.json": json.dumps(evidence.test.to_json(), indent=2)} if evidence.test else {}
    with scratch_folder("promote") as scratch:
        scaled = scratch / "checkpoint"
        copy_with_temperature(checkpoint, scaled, temperature)
        promotion = Promotion(
            experiment=entry.experiment,
            search_id=entry.search_id,
            uid=entry.uid,
            trained_in=choice.entry.search_id,
            trained_uid=choice.entry.uid,
            trial=choice.trial.number,
            checkpoint=scaled,
            model_digest=checkpoint_digest(checkpoint),
            alias=options.alias,
            tags=_tags(index, choice, evidence, options),
            params={"backbone": meta.backbone, "weights_id": meta.weights_id, "image_size": str(meta.image_size)},
            metrics=_metrics(choice, temperature, evidence),
            card=card,
            files=files,
        )
        return register_model(entry.tracking_uri, promotion, served_code=SERVED_CODE), card


def _licence(backbone: str, source: WeightsSource) -> str:
    if source.kind == "none":
        return "none needed (trained from scratch)"
    return weights_card(backbone, source).licence or "not known (the weights are not the library's own)"


def _tags(index: ImageIndex, choice: Choice, evidence: Evidence, options: PromoteOptions) -> Mapping[str, str]:
    tags = {
        "tlsearch.trained_in": choice.entry.search_id,
        "tlsearch.promoted_trial": str(choice.trial.number),
        "tlsearch.data_digest": index.digest,
        "tlsearch.refit": str(options.refit).lower(),
        "tlsearch.test": "evaluated" if evidence.test else "none",
    }
    if choice.trial.best_value is not None:
        tags["val_value"] = f"{choice.trial.best_value:.6g}"
    if evidence.test is not None:
        low, high = evidence.test.accuracy_interval
        tags |= {
            "test_accuracy": f"{evidence.test.accuracy:.6g}",
            "test_accuracy_interval": f"{low:.6g} {high:.6g}",
            "test_macro_f1": f"{evidence.test.macro_f1:.6g}",
        }
    return tags


def _metrics(choice: Choice, temperature: float, evidence: Evidence) -> dict[str, float]:
    metrics = {"temperature": temperature, "parameters": float(choice.parameters)}
    if evidence.test is not None:
        one = evidence.test
        metrics |= {
            "test_accuracy": one.accuracy,
            "test_accuracy_low": one.accuracy_interval[0],
            "test_accuracy_high": one.accuracy_interval[1],
            "test_balanced_accuracy": one.balanced_accuracy,
            "test_macro_f1": one.macro_f1,
            **{f"test_{name}": value for name, value in asdict(one.calibration).items() if name != "temperature"},
        }
    return metrics
