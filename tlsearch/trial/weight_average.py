"""Averages of the weights of trials that began from one start: model soups.

Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time" (2022). Where training moved running statistics of batch norm, the average's own are estimated on the
training images: the average of statistics is not the statistics of the average.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlsearch.config.checkpoint_meta import ModelMeta, read_model_file
from tlsearch.core.errors import StorageError
from tlsearch.core.types import TrialSetup
from tlsearch.data import ImageIndex
from tlsearch.features import PASS_BATCH_SIZE, tensor_digests
from tlsearch.model import MAX_DEPTH, PART_NAMES, Weights, adapt_statistics, fold_batchnorm
from tlsearch.train import Source, load_batch, open_runtime, predict_logits, read_model_state
from tlsearch.trial.context import FrozenGuard, Phase, TrialContext
from tlsearch.trial.inputs import open_source
from tlsearch.trial.run_trial import load_trained

_log = logging.getLogger(__name__)
_MOST_IMAGES = 8192  # that statistics are estimated on: of a million images they would be no better
_STATISTICS = ("running_mean", "running_var")


class WeightAverages:
    """The models of several trials, and any average of them.

    What none of the trials has changed is computed once: averages read the features that the search has cached.

    Attributes:
        metas: What each checkpoint says of itself, by trial.
        labels: Of the validation images, as of ``ImageIndex.label_array``.
    """

    def __init__(self, folders: Mapping[int, Path], setup: TrialSetup, index: ImageIndex) -> None:
        """Reads the checkpoints.

        Args:
            folders: A checkpoint of each trial, the first one's trial is the base.
            setup: Of the search's trials.
            index: The data set.

        Raises:
            StorageError: A checkpoint is damaged, or not of the first one's backbone, weights, transform and classes.
        """
        (self._base, first), *others = folders.items()
        self._model, meta = load_trained(first)
        self.metas = {self._base: meta}
        self._start: dict[str, Tensor] = {name: tensor.clone() for name, tensor in self._model.state_dict().items()}
        self._moved: dict[int, dict[str, Tensor]] = {self._base: {}}
        for number, folder in others:
            self.metas[number], self._moved[number] = self._read(folder)
        self._names = frozenset(name for moved in self._moved.values() for name in moved)
        parts = [PART_NAMES.index(name.split(".")[0]) for name in self._names]
        self._depth = MAX_DEPTH - min(parts, default=MAX_DEPTH)
        self.labels = index.label_array("val")
        runtime = open_runtime(setup.device, setup.precision, compiled=setup.compiled)
        self._model.to(device=runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if runtime.folds_batchnorm:
            fold_batchnorm(self._model)
        plain = replace(meta.config, bn_policy="frozen", augmentation="none", mixup=0.0, cutmix=0.0)
        self._context = TrialContext(
            config=plain,
            setup=setup,
            index=index,
            weights=Weights(id=meta.weights_id, digest=meta.weights_digest, state=None, transform=meta.transform),
            transform=meta.transform,
            runtime=runtime,
        )
        self._phase = Phase(depth=self._depth, guard=FrozenGuard(digests=tensor_digests(self._start)))
        self._sources: dict[str, Source] = {}

    def _read(self, folder: Path) -> tuple[ModelMeta, dict[str, Tensor]]:
        """With the tensors that are not those of the first checkpoint."""
        found, meta = read_model_file(folder), self.metas[self._base]
        for what in ("backbone", "weights_digest", "transform", "classes"):
            here, there = getattr(meta, what), getattr(found.meta, what)
            if here != there:
                raise StorageError(
                    f"weights are averaged over models with the same {what}; {folder} has {there}, and trial "
                    f"{self._base} has {here}"
                )
        state = read_model_state(folder, found, self._model)
        return found.meta, {name: t for name, t in state.items() if not torch.equal(t, self._start[name])}

    def logits(self, members: Sequence[int]) -> NDArray[np.float32]:
        """What the average of these trials' weights says of the validation images, (N, C).

        Raises:
            DataError: An image cannot be read.
        """
        self._average(members)
        logits = predict_logits(self._model, self._source("val"), self._context.runtime, depth=self._depth)
        return np.asarray(logits.numpy(), dtype=np.float32)

    def state(self, members: Sequence[int]) -> dict[str, Tensor]:
        """All tensors of the average, on the CPU."""
        self._average(members)
        return {name: tensor.detach().cpu().clone() for name, tensor in self._model.state_dict().items()}

    @torch.no_grad()
    def _average(self, members: Sequence[int]) -> None:
        assert members, "an average has members"
        state = self._model.state_dict()
        for name in self._names:
            state[name].copy_(self._mean(name, members))
        layers = {
            name.rpartition(".")[0]
            for number in members
            for name in self._moved[number].keys() | self._moved[members[0]].keys()
            if name.endswith(_STATISTICS) and not torch.equal(self._of(number, name), self._of(members[0], name))
        }
        if layers:
            adapt_statistics(self._model, self._training_rows(), depth=self._depth, only=layers)

    def _mean(self, name: str, members: Sequence[int]) -> Tensor:
        tensors = [self._of(number, name) for number in members]
        if not tensors[0].is_floating_point():  # a counter of batches
            return tensors[0]
        mean: Tensor = torch.stack([tensor.double() for tensor in tensors]).mean(0)
        return mean.to(tensors[0].dtype)

    def _of(self, number: int, name: str) -> Tensor:
        return self._moved[number].get(name, self._start[name])

    def _training_rows(self) -> Iterator[Tensor]:
        """Training images, or their features, without augmentation, shuffled: classes come in order."""
        source = self._source("train")
        order = torch.randperm(len(source), generator=torch.Generator().manual_seed(0))[:_MOST_IMAGES]
        for rows in torch.split(order, PASS_BATCH_SIZE):
            batch = load_batch(source, rows.sort().values, self._context.runtime)[0]
            if source.kind == "pixels":
                batch = self._model.forward_prefix(batch, self._depth)
            yield batch

    def _source(self, split: str) -> Source:
        if split not in self._sources:
            self._sources[split] = open_source(self._model, self._context, self._phase, split)
        return self._sources[split]
