"""Head-only training on stored features as plain linear algebra.

The gradient of cross-entropy through one linear layer is known in closed form, so no autograd graph is
built. It is that of the head module up to rounding, with the same dropout masks from the same seed.

N rows, B rows of a batch, F features, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tlsearch.model import StagedModel
from tlsearch.train.objective import Objective
from tlsearch.train.runtime import Runtime
from tlsearch.train.source import Source, load_batch


@dataclass(frozen=True, kw_only=True)
class LinearHead:
    """A head that is dropout and one linear layer."""

    linear: nn.Linear
    dropout: float
    runtime: Runtime

    @torch.no_grad()
    def gradients(self, source: Source, index: Tensor, objective: Objective, totals: Tensor) -> None:
        """Puts one batch's gradients beside the parameters; adds the sums of loss and hits to ``totals`` (2,)."""
        weight, bias = self.linear.weight, self.linear.bias
        rows, labels = load_batch(source, index, self.runtime)
        if self.dropout > 0:
            rows = F.dropout(rows, self.dropout, training=True)
        logits = F.linear(rows, weight, bias)
        log_probs = torch.log_softmax(logits, 1)
        error = log_probs.exp()  # (B, C): d loss / d logits = (p - onehot) / B
        if objective.plain:
            error.scatter_add_(1, labels[:, None], error.new_full((len(labels), 1), -1.0))
            totals[0] += F.nll_loss(log_probs, labels, reduction="sum")
        else:
            targets = objective.target_rows(labels, logits.shape[1])  # p sum(t) - t, where the targets t are weighted
            error.mul_(targets.sum(1, keepdim=True)).sub_(targets)
            totals[0] -= (targets * log_probs).sum()
        error /= len(labels)
        if weight.grad is None:
            weight.grad = torch.empty_like(weight)
        torch.mm(error.t(), rows, out=weight.grad)
        if bias is not None:
            bias.grad = error.sum(0)
        totals[1] += (logits.argmax(1) == labels).sum()


def linear_head(model: StagedModel, source: Source, runtime: Runtime) -> LinearHead | None:
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
    return LinearHead(linear=last, dropout=rates[0] if rates else 0.0, runtime=runtime)
