"""Head-only training on stored features as plain linear algebra.

The gradient of a cross-entropy through one linear layer is known in closed form, so no autograd graph is
built. It is that of the head module up to rounding, with the head's own dropout, so with the same masks.

N rows, B rows of a batch, F features, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from tlsearch.data import to_device
from tlsearch.model import Part, StagedModel
from tlsearch.train.device import Runtime
from tlsearch.train.loop.batches import Source, device_batch
from tlsearch.train.loop.loss import TrainingLoss

_BLOCK_ROWS = 2048  # rows whose targets are made, and whose figures are summed, in one go


class LinearHead:
    """A head that is dropout and one linear layer.

    A step takes about a tenth of a millisecond, of which each call of torch is a notable part. So what does not
    depend on the weights is done for a block of batches at once: targets before its steps, losses and hits, from the
    logits that the steps have left, after them.
    """

    def __init__(
        self,
        linear: nn.Linear,
        *,
        dropout: nn.Dropout | None,
        source: Source,
        runtime: Runtime,
        objective: TrainingLoss,
    ) -> None:
        self._linear = linear
        self._dropout = dropout
        self._source = source
        self._runtime = runtime
        self._objective = objective

    @torch.no_grad()
    def run_epoch(self, batches: Sequence[Tensor], take_step: Callable[[int], None]) -> Tensor:
        """Puts each batch's gradients beside the parameters, then calls ``take_step`` with the batch's number, from 0.

        Args:
            batches: The rows of each batch: int64 (B,).

        Returns:
            float64 (2,): the sums of loss and of hits over all batches.
        """
        self._make_gradients()
        num_steps = max(1, _BLOCK_ROWS // len(batches[0]))
        blocks = [
            self._run_block(batches[start : start + num_steps], start, take_step)
            for start in range(0, len(batches), num_steps)
        ]
        return torch.stack(blocks).sum(0)

    def _run_block(self, batches: Sequence[Tensor], first: int, take_step: Callable[[int], None]) -> Tensor:
        weight, bias = self._linear.weight, self._linear.bias
        labels = to_device(self._source.learned[torch.cat(list(batches))], self._runtime.device)
        targets = self._objective.target_rows(labels, self._linear.out_features)
        mass = self._objective.masses(labels, targets)
        logits = torch.empty_like(targets)
        sizes = [len(index) for index in batches]
        masses = [None] * len(sizes) if mass is None else torch.split(mass, sizes)
        parts = zip(batches, torch.split(logits, sizes), torch.split(targets, sizes), masses, strict=True)
        turned = weight.t()  # a view: it follows the steps
        for step, (index, outputs, wanted, sums) in enumerate(parts, first):
            rows = device_batch(self._source, index, self._runtime).float()
            if self._dropout is not None:
                rows = self._dropout(rows)
            _into(outputs, rows, turned, bias)
            error = self._objective.probabilities(outputs)  # (B, C): d loss / d logits = (p mass - wanted) / B
            if sums is not None:
                error.mul_(sums)
            error.sub_(wanted).mul_(1 / len(index))
            torch.mm(error.t(), rows, out=weight.grad)
            if bias is not None:
                torch.sum(error, 0, out=bias.grad)
            take_step(step)
        hits = self._objective.hits(logits, labels)
        return torch.stack([self._objective.total(logits, labels).double(), hits.double()])

    def _make_gradients(self) -> None:
        for parameter in self._linear.parameters():
            if parameter.grad is None:
                parameter.grad = torch.empty_like(parameter)


def _into(logits: Tensor, rows: Tensor, turned: Tensor, bias: Tensor | None) -> None:
    """Writes the layer's outputs into ``logits``; ``turned`` is the weight's transpose."""
    if bias is None:
        torch.mm(rows, turned, out=logits)
    else:
        torch.addmm(bias, rows, turned, out=logits)


def linear_head(model: StagedModel, source: Source, runtime: Runtime, objective: TrainingLoss) -> LinearHead | None:
    """The model's head as a LinearHead, or None where it is something else or the rows do not suit.

    Suits: features (N, F) on a head of dropout, identity and one linear layer at its end. They train in float32
    whatever the precision of the passes: so small a product gains nothing from less.
    """
    if source.kind != "features" or not isinstance(source.rows, Tensor) or source.rows.dim() != 2:
        return None
    *front, last = [m for m in model.head.modules() if not list(m.children())]
    if not isinstance(last, nn.Linear) or not last.weight.requires_grad:
        return None
    dropouts = [m for m in front if isinstance(m, nn.Dropout)]
    if len(dropouts) > 1 or not all(isinstance(m, (nn.Dropout, nn.Identity, nn.Flatten)) for m in front):
        return None
    if type(model.head).forward not in (Part.forward, nn.Sequential.forward, nn.Linear.forward):
        return None  # a module with a forward of its own may do more than its children
    dropout = dropouts[0] if dropouts else None
    return LinearHead(last, dropout=dropout, source=source, runtime=runtime, objective=objective)
