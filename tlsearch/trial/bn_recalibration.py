"""BN policies that recalibrate: the running statistics become those of the training images, computed once per node."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from tlsearch.core.errors import DataError
from tlsearch.features import PASS_BATCH_SIZE, combined_digest, open_solution, tensor_digests
from tlsearch.model import StagedModel, adapt_statistics
from tlsearch.train import load_batch, out_of_memory_is_infeasible
from tlsearch.trial.context import TrialContext
from tlsearch.trial.inputs import key_of, plain_pixels

_STATISTICS = (".running_mean", ".running_var")


@torch.no_grad()
def adapt_to_training_images(model: StagedModel, context: TrialContext) -> None:
    """Sets the backbone's running means and variances; the model must have its pretrained tensors and no freeze yet.

    Raises:
        DataError: There are fewer than two training images, or one cannot be read.
        Infeasible: The pass does not fit the device.
    """
    key = key_of(context, "train", depth=0, state_digest=combined_digest(tensor_digests(model.backbone_state())))

    def compute() -> dict[str, Tensor]:
        if len(context.index.splits["train"].labels) < 2:
            raise DataError(f"bn_policy {context.config.bn_policy} needs two training images or more")
        with out_of_memory_is_infeasible("the statistics of batch norm"):
            adapt_statistics(model, _batches(context))
        return _statistics(model)

    settings = {"batch_size": PASS_BATCH_SIZE}
    stored = open_solution("bn_statistics", key, compute=compute, cache=context.setup.cache, settings=settings)
    for name, tensor in _statistics(model).items():
        tensor.copy_(stored[name])


def _statistics(model: StagedModel) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in model.backbone_state().items() if name.endswith(_STATISTICS)}


def _batches(context: TrialContext) -> Iterator[Tensor]:
    """The training images without augmentation, shuffled: layers normalise by batches, and classes come in order."""
    source = plain_pixels(context, "train")
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(0))
    for index in torch.split(order, PASS_BATCH_SIZE):
        yield load_batch(source, index, context.runtime)[0]
