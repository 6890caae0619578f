"""Head-only training on stored features as plain linear algebra.

The gradient of cross-entropy through one linear layer is known in closed form, so no autograd graph is
built. It is that of the head module up to rounding, with the same dropout masks from the same seed.

N rows, B rows of a batch, F features, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tlsearch.model import StagedModel
from tlsearch.train.objective import Objective
from tlsearch.train.runtime import Runtime
from tlsearch.train.source import Source, load_batch


@dataclass(frozen=True, kw_only=True)
class LinearHead:
    """A head that is dropout and one linear layer, for one epoch.

    Attributes:
        losses: Of each batch so far the sum over its rows.
        hits: Of each batch so far, by row, whether it was right; neither is added up within the epoch, since so small
            a step would take longer for it.
    """

    linear: nn.Linear
    dropout: float
    source: Source
    runtime: Runtime
    objective: Objective
    losses: list[Tensor] = field(default_factory=list)
    hits: list[Tensor] = field(default_factory=list)

    @torch.no_grad()
    def gradients(self, index: Tensor) -> None:
        """Puts one batch's gradients beside the parameters."""
        weight, bias = self.linear.weight, self.linear.bias
        rows, labels = load_batch(self.source, index, self.runtime)
        if self.dropout > 0:
            rows = F.dropout(rows, self.dropout, training=True)
        logits = F.linear(rows, weight, bias)
        log_probs = torch.log_softmax(logits, 1)
        error = log_probs.exp()  # (B, C): d loss / d logits = (p - onehot) / B
        if self.objective.plain:
            error.scatter_add_(1, labels[:, None], error.new_full((len(labels), 1), -1.0))
            self.losses.append(F.nll_loss(log_probs, labels, reduction="sum"))
        else:  # p sum(t) - t, where the targets t are weighted
            targets = self.objective.target_rows(labels, logits.shape[1])
            error.mul_(targets.sum(1, keepdim=True)).sub_(targets)
            self.losses.append(-(targets * log_probs).sum())
        error /= len(labels)
        if weight.grad is None:
            weight.grad = torch.empty_like(weight)
        torch.mm(error.t(), rows, out=weight.grad)
        if bias is not None:
            bias.grad = error.sum(0)
        self.hits.append(logits.argmax(1) == labels)

    def totals(self) -> Tensor:
        """float64 (2,): the sums of loss and of hits over all batches."""
        return torch.stack([torch.stack(self.losses).double().sum(), torch.cat(self.hits).sum().double()])


def linear_head(model: StagedModel, source: Source, runtime: Runtime, objective: Objective) -> LinearHead | None:
    """The model's head as a LinearHead, or None where it is something else or the rows do not suit.

    Suits: float32 features (N, F) on a head of dropout, identity and one linear layer at its end.
    """
    suits = source.kind == "features" and isinstance(source.rows, Tensor) and source.rows.dim() == 2
    if not suits or runtime.precision != "fp32":
        return None
    *front, last = [m for m in model.head.modules() if not list(m.children())]
    if not isinstance(last, nn.Linear) or not last.weight.requires_grad:
        return None
    rates = [m.p for m in front if isinstance(m, nn.Dropout)]
    if len(rates) > 1 or not all(isinstance(m, (nn.Dropout, nn.Identity, nn.Flatten)) for m in front):
        return None
    if type(model.head).forward not in (nn.Sequential.forward, nn.Linear.forward):
        return None  # a module with a forward of its own may do more than its children
    dropout = rates[0] if rates else 0.0
    return LinearHead(linear=last, dropout=dropout, source=source, runtime=runtime, objective=objective)
