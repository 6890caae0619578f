"""A small ensemble: two networks that share their frozen prefix, and one with a preprocessing of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from tlsearch.config.ensemble_meta import EnsembleMeta
from tlsearch.train import ensemble_member, read_model_meta, save_ensemble, save_model_checkpoint
from tlsearch.trial import load_trained

COUNTS = (3, 1, 1)


def write_ensemble(checkpoint: Path, folder: Path) -> Path:
    """The folder of an ensemble of three variants of a trained model.

    Args:
        checkpoint: Of the model.
        folder: Made; it gets the ensemble and the checkpoints of its members, ``<folder>/<place>``.
    """
    model, meta = load_trained(checkpoint)
    state = model.state_dict()
    rng = torch.Generator().manual_seed(0)
    head = {
        name: tensor + 0.3 * torch.randn(tensor.shape, generator=rng)
        for name, tensor in state.items()
        if name.startswith("head.classifier")
    }
    larger = replace(meta.transform, resize_size=56, crop_size=48)
    variants = [
        (state, meta),
        (state | head, meta),
        ({**state, **{name: -tensor for name, tensor in head.items()}}, replace(meta, transform=larger, image_size=48)),
    ]
    for place, (tensors, own) in enumerate(variants):
        save_model_checkpoint(folder / str(place), state=tensors, meta=own)
    members = tuple(
        ensemble_member(folder / str(place), trial=10 + place, count=count, temperature=0.5 + place)
        for place, count in enumerate(COUNTS)
    )
    found = read_model_meta(checkpoint)
    save_ensemble(
        folder / "ensemble",
        EnsembleMeta(members=members, metric=found.metric, value=0.75, cross_fitted=0.7),
        [folder / str(place) for place in range(len(members))],
    )
    return folder / "ensemble"
