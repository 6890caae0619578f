"""What a promotion registers: the model with its card, its tags and its figures, as a version in the registry."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.app.catalog.stored import read_record
from tlsearch.app.production.choice import Choice
from tlsearch.app.production.conclude import read_confirmed
from tlsearch.app.production.ready_model import ReadyModel
from tlsearch.app.production.test_uses import Evidence
from tlsearch.config import SpaceFile
from tlsearch.core.codec import to_plain
from tlsearch.core.types import WeightsSource
from tlsearch.core.user_folders import scratch_folder
from tlsearch.data import ImageIndex
from tlsearch.model import weights_card
from tlsearch.results import SERVED_CODE
from tlsearch.results.combine.default_gain import default_gain
from tlsearch.results.promotion.model_card import CardFacts, model_card
from tlsearch.results.promotion.test_split import checkpoint_digest
from tlsearch.tracking.registry.promotion_run import Promotion
from tlsearch.tracking.registry.versions import Promoted, register_model
from tlsearch.train import ModelMeta, copy_calibrated, networks_of


def register(
    entry: SearchEntry,
    file: SpaceFile,
    index: ImageIndex,
    choice: Choice,
    ready: ReadyModel,
    evidence: Evidence,
    *,
    alias: str,
) -> tuple[Promoted, str]:
    """Writes the card and makes the version, with temperature and thresholds in its checkpoint; returns both."""
    temperature, thresholds = ready.calibration.temperature, ready.calibration.thresholds
    networks = networks_of(ready.checkpoint)
    gain = default_gain(entry.path, read_record(entry))
    card = model_card(
        CardFacts(
            name=entry.experiment,
            meta=networks[0],
            search_id=choice.entry.search_id,
            trial=choice.trial.number,
            chosen=choice.reason,
            data_source=index.source,
            data_digest=index.digest,
            images={name: len(split) for name, split in index.splits.items()},
            refit=ready.refit,
            licence=_licences(networks, file),
            parameters=choice.parameters,
            temperature=temperature,
            latency=choice.latency,
            confirmed=read_confirmed(entry),
            evidence=evidence.test,
            no_test=evidence.missing,
            test_notes=evidence.notes,
            combination=choice.combination,
            networks=networks,
            default_gain="" if gain is None else gain.sentence,
        )
    )
    files = {"evidence.json": json.dumps(to_plain(evidence.test), indent=2)} if evidence.test else {}
    with scratch_folder("promote") as scratch:
        scaled = scratch / "checkpoint"
        copy_calibrated(ready.checkpoint, scaled, temperature, thresholds)
        promotion = Promotion(
            search=entry.recorded,
            trained_in=choice.entry.recorded,
            trial=choice.trial.number,
            kind="" if choice.combination is None else choice.combination.kind,
            checkpoint=scaled,
            model_digest=checkpoint_digest(ready.checkpoint),
            alias=alias,
            tags=_tags(index, choice, evidence, refit=ready.refit),
            params=_params(networks),
            metrics=_metrics(choice, temperature, evidence),
            card=card,
            files=files,
        )
        return register_model(promotion, served_code=SERVED_CODE), card


def _licences(networks: Sequence[ModelMeta], file: SpaceFile) -> str:
    """Of the weights; with several backbones of each."""
    found = {one.backbone: _licence(one.backbone, file.weights_of(one.backbone)) for one in networks}
    if len(found) == 1:
        return next(iter(found.values()))
    return "; ".join(f"{backbone}: {licence}" for backbone, licence in found.items())


def _licence(backbone: str, source: WeightsSource) -> str:
    if source.kind == "none":
        return "none needed (trained from scratch)"
    return weights_card(backbone, source).licence or "not known (the weights are not the library's own)"


def _params(networks: Sequence[ModelMeta]) -> dict[str, str]:
    """Of the run; with several networks all distinct values, in their order."""
    values = {
        "backbone": [one.backbone for one in networks],
        "weights_id": [one.weights_id for one in networks],
        "image_size": [str(one.image_size) for one in networks],
    }
    return {name: ", ".join(dict.fromkeys(each)) for name, each in values.items()}


def _tags(index: ImageIndex, choice: Choice, evidence: Evidence, *, refit: bool) -> Mapping[str, str]:
    tags = {
        "tlsearch.trained_in": choice.entry.search_id,
        "tlsearch.promoted_trial": str(choice.trial.number),
        "tlsearch.data_digest": index.digest,
        "tlsearch.refit": str(refit).lower(),
        "tlsearch.test": "evaluated" if evidence.test else "none",
    }
    found = choice.combination
    if found is not None:
        tags["tlsearch.promoted"] = found.kind
        tags["tlsearch.members"] = " ".join(f"{one.trial}x{one.count}" for one in found.members)
        tags["val_value"] = f"{found.value:.6g}"
    elif choice.trial.best_value is not None:
        tags["val_value"] = f"{choice.trial.best_value:.6g}"
    if evidence.test is not None:
        one = evidence.test.headline
        tags |= {
            f"test_{one.name}": f"{one.value:.6g}",
            f"test_{one.name}_interval": f"{one.low:.6g} {one.high:.6g}",
            "test_macro_f1": f"{evidence.test.macro_f1:.6g}",
        }
    return tags


def _metrics(choice: Choice, temperature: float, evidence: Evidence) -> dict[str, float]:
    metrics = {"temperature": temperature, "parameters": float(choice.parameters)}
    if evidence.test is not None:
        one, first = evidence.test, evidence.test.headline
        metrics |= {
            f"test_{first.name}": first.value,
            f"test_{first.name}_low": first.low,
            f"test_{first.name}_high": first.high,
            **{f"test_{name}": value for name, _, value in one.others},
            **{f"test_{name}": value for name, value in asdict(one.calibration).items() if name != "temperature"},
        }
        if one.against is not None:
            metrics |= {"test_accuracy_single": one.against.accuracy, "test_mcnemar_p": one.against.p_value}
    return metrics
