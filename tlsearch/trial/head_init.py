"""Heads that are solved: the linear probe that a head starts from (head_init ``probe``), and those that nothing trains.

The probe is solved once per node. Of ridge and cosine heads the process holds what all penalties share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from tlsearch.core.errors import Diverged
from tlsearch.features import open_solution
from tlsearch.model import StagedModel
from tlsearch.train import (
    Evaluation,
    FeatureSource,
    Probe,
    Source,
    Spectrum,
    affordable_rows,
    evaluate,
    fit_probe,
    load_batch,
    out_of_memory_is_infeasible,
    solve_layer,
    solve_probe,
    spectrum_of,
)
from tlsearch.trial.context import FrozenGuard, Phase, TrialContext
from tlsearch.trial.inputs import key_of, open_source, prefix_pass
from tlsearch.trial.process_cache import held_index, held_spectrum

_SOLVER = 5  # counts up when the solver's results change
_BATCH_SIZE = 1024


@torch.no_grad()
def solve_head(model: StagedModel, context: TrialContext, guard: FrozenGuard) -> tuple[Evaluation, Source]:
    """Puts the head of the configuration, where nothing trains it, or else the linear probe into the new head.

    The probe is that of the backbone as it is now, on the un-augmented images: the pretrained one, with the statistics
    that bn_policy ``adapt`` has set. All trials of the node with this backbone share it. For a refit it is fitted to
    train and val together, with the penalty that the trial's had: val can choose none then.

    Args:
        guard: Of the backbone's tensors as they are now.

    Returns:
        What the model is worth on val before its first step, and what of val that was read from: cached features of the
        backbone where there are such.

    Raises:
        DataError: Images cannot be read.
        Diverged: The backbone's features are not finite.
        Infeasible: The images' features do not fit the device.
    """
    refit = context.setup.refit
    if refit:
        context = replace(context, index=held_index(context.setup.data))
    plain = replace(context.config, unfreeze_depth=0, bn_policy="frozen", augmentation="none", mixup=0.0, cutmix=0.0)
    context, phase = replace(context, config=plain), Phase(depth=0, guard=guard)
    if context.config.solved:
        stored = _solved(model, context, phase, splits=("train", "val") if refit else ("train",))
    else:
        stored = _shared_probe(model, context, phase)
        if refit:
            stored = _refitted(model, context, phase, stored)
    for name, tensor in _split_head(model)[1].named_parameters():
        tensor.copy_(stored[name])
    val = open_source(model, context, phase, "val")
    return evaluate(model, val, context.runtime, depth=0), val


def _split_head(model: StagedModel) -> tuple[list[nn.Module], nn.Linear]:
    *front, classifier = model.head.children()
    assert isinstance(classifier, nn.Linear), f"a new head ends in a linear layer, not in {type(classifier).__name__}"
    return front, classifier


def _shared_probe(model: StagedModel, context: TrialContext, phase: Phase) -> Mapping[str, Tensor]:
    """Weight, bias and ``figures`` (penalty, whether standardised) of the probe, solved by this trial or by another."""
    front, classifier = _split_head(model)
    key = key_of(context, "train", depth=0, state_digest=phase.guard.digest)

    def compute() -> dict[str, Tensor]:
        bias = classifier.bias is not None
        with out_of_memory_is_infeasible("the linear probe"):
            train, val = (_classifier_inputs(model, front, context, phase, split) for split in ("train", "val"))
            probe = solve_probe(*train, *val, num_classes=classifier.out_features, bias=bias)
        return _tensors(probe)

    return open_solution(
        "linear_probe",
        key,
        compute=compute,
        cache=context.setup.cache,
        settings={"solver": _SOLVER},
        meanwhile=partial(open_source, model, context, phase, "val"),  # the other one begins with train
    )


def _refitted(
    model: StagedModel, context: TrialContext, phase: Phase, stored: Mapping[str, Tensor]
) -> Mapping[str, Tensor]:
    front, classifier = _split_head(model)
    penalty, standardised = stored["figures"].tolist()
    with out_of_memory_is_infeasible("the linear probe"):
        parts = [_classifier_inputs(model, front, context, phase, split) for split in ("train", "val")]
        rows, labels = (torch.cat(pair) for pair in zip(*parts, strict=True))
        probe = fit_probe(
            rows,
            labels,
            penalty=penalty * len(parts[0][0]) / len(rows),  # the same penalty beside the sum of the losses
            standardised=bool(standardised),
            num_classes=classifier.out_features,
            bias=classifier.bias is not None,
        )
    return _tensors(probe)


def _solved(model: StagedModel, context: TrialContext, phase: Phase, *, splits: Sequence[str]) -> Mapping[str, Tensor]:
    """Weight and bias of the head that the configuration names, solved on these splits together.

    A penalty is beside the mean loss of an image, so that it stays the same where there are more of them.
    """
    config = context.config
    front, classifier = _split_head(model)
    num_classes, bias = classifier.out_features, classifier.bias is not None

    def compute() -> Spectrum:
        parts = [_classifier_inputs(model, front, context, phase, split) for split in splits]
        rows, labels = (torch.cat(pair) for pair in zip(*parts, strict=True))
        return spectrum_of(rows, labels, num_classes=num_classes, bias=bias)

    key = (key_of(context, "+".join(splits), depth=0, state_digest=phase.guard.digest), num_classes)
    with out_of_memory_is_infeasible("the head"):
        layer = solve_layer(held_spectrum(key, compute), config.head, config.head_penalty)
    return {"weight": layer.weight} | ({} if layer.bias is None else {"bias": layer.bias})


def _tensors(probe: Probe) -> dict[str, Tensor]:
    figures = torch.tensor([probe.penalty, float(probe.standardised)], dtype=torch.float64)
    return {"weight": probe.weight, "figures": figures} | ({} if probe.bias is None else {"bias": probe.bias})


def _classifier_inputs(
    model: StagedModel, front: list[nn.Module], context: TrialContext, phase: Phase, split: str
) -> tuple[Tensor, Tensor]:
    """What the head's linear layer would see of a split, in eval mode: float32 (N, F) and labels, on the device.

    Of a split that is too large to be fitted to a part: the rest never needs the device's memory.
    """
    source = open_source(model, context, phase, split)
    if source.kind == "pixels":  # the store is off or has no room: computed for this once
        rows = torch.cat(list(prefix_pass(model, context, phase, split)))
        source = FeatureSource(reason="", rows=rows, labels=source.labels)
    model.eval()
    classifier = _split_head(model)[1]
    device_type = context.runtime.device.type
    taken = affordable_rows(len(source), classifier.in_features, classifier.out_features, device_type)
    parts, labels = [], []
    for chosen in torch.split(torch.arange(len(source)) if taken is None else taken, _BATCH_SIZE):
        rows, row_labels = load_batch(source, chosen, context.runtime)
        for module in front:
            rows = module(rows)
        parts.append(rows)
        labels.append(row_labels)
    inputs = torch.cat(parts)
    num_broken = int((~inputs.isfinite().all(1)).sum())
    if num_broken:
        raise Diverged(f"the backbone's features of {num_broken} of {len(inputs)} images in {split} are not finite")
    return inputs, torch.cat(labels)
