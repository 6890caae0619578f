"""head_init ``probe``: the head starts from the linear probe of its backbone, solved once per node."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from tlsearch.features import open_solution, tensor_digests
from tlsearch.model import StagedModel
from tlsearch.train import load_batch, out_of_memory_is_infeasible, solve_probe
from tlsearch.trial.frozen import FrozenGuard
from tlsearch.trial.held import held_index
from tlsearch.trial.sources import SourceInputs, key_of, open_source, prefix_pass

_SOLVER = 1  # counts up when the solver's results change
_BATCH_SIZE = 1024


@torch.no_grad()
def start_from_probe(model: StagedModel, inputs: SourceInputs) -> float:
    """Puts the linear probe into the new head.

    It is that of the backbone as it is now, on the un-augmented images: the pretrained one, with the statistics that
    bn_policy ``adapt`` has set. All trials of the node with this backbone share it.

    Returns:
        The probe's validation accuracy.

    Raises:
        DataError: Images cannot be read.
        Infeasible: The images' features do not fit the device.
    """
    if inputs.setup.refit:  # val is in train then and can choose no penalty: the head starts as the trial's did
        inputs = replace(inputs, index=held_index(inputs.setup.data))
    backbone = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("head.")}
    plain = replace(inputs.config, unfreeze_depth=0, bn_policy="frozen", augmentation="none", mixup=0.0, cutmix=0.0)
    inputs = replace(inputs, depth=0, config=plain, guard=FrozenGuard(digests=tensor_digests(backbone)))
    key = key_of(inputs, "train", depth=0, state_digest=inputs.guard.digest)
    *front, classifier = model.head.children()
    assert isinstance(classifier, nn.Linear), f"a new head ends in a linear layer, not in {type(classifier).__name__}"

    def compute() -> dict[str, Tensor]:
        bias = classifier.bias is not None
        with out_of_memory_is_infeasible("the linear probe"):
            train, val = (_classifier_inputs(model, front, inputs, split) for split in ("train", "val"))
            probe = solve_probe(*train, *val, num_classes=classifier.out_features, bias=bias)
        figures = torch.tensor([probe.penalty, probe.val_loss, probe.val_accuracy], dtype=torch.float64)
        return {"weight": probe.weight, "figures": figures} | ({} if probe.bias is None else {"bias": probe.bias})

    settings = {"solver": _SOLVER}
    stored = open_solution("linear_probe", key, compute=compute, cache=inputs.setup.cache, settings=settings)
    for name, tensor in classifier.named_parameters():
        tensor.copy_(stored[name])
    return float(stored["figures"][-1])


def _classifier_inputs(
    model: StagedModel, front: list[nn.Module], inputs: SourceInputs, split: str
) -> tuple[Tensor, Tensor]:
    """What the head's linear layer would see of a split, in eval mode: float32 (N, F) and labels, on the device."""
    source = open_source(model, inputs, split)
    if source.kind == "pixels":  # the store is off or has no room: computed for this once
        source = replace(source, kind="features", rows=torch.cat(list(prefix_pass(model, inputs, split))), prepare=None)
    model.eval()
    parts, labels = [], []
    for start in range(0, len(source), _BATCH_SIZE):
        rows, row_labels = load_batch(source, slice(start, start + _BATCH_SIZE), inputs.runtime)
        for module in front:
            rows = module(rows)
        parts.append(rows)
        labels.append(row_labels)
    return torch.cat(parts), torch.cat(labels)
