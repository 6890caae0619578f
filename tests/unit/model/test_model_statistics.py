"""bn_policy `adapt`: the statistics are those of the training images."""

from __future__ import annotations

import copy

import pytest
import torch
from model_cases import images, tiny_shufflenet, tiny_vit

from tlsearch.model import StagedModel, adapt_statistics, batchnorm_layers
from tlsearch.model.weights.resolve import state_digest


def test_the_first_layers_statistics_are_those_of_all_images() -> None:
    model = tiny_shufflenet()
    batch = images(10, 32)
    adapt_statistics(model, batch.split(3))
    convolution, first = model.stem.conv1[0], model.stem.conv1[1]
    with torch.no_grad():
        values = convolution(batch).double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(first.running_mean.double(), values.mean(1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(first.running_var.double(), values.var(1), rtol=1e-5, atol=1e-6)


def test_one_batch_gives_torchs_own_cumulative_statistics_in_every_layer() -> None:
    model = tiny_shufflenet()
    batch = images(16, 64)
    reference = copy.deepcopy(model).train()
    for layer in batchnorm_layers(reference):
        layer.reset_running_stats()
        layer.momentum = None
    with torch.no_grad():
        reference(batch)
    adapt_statistics(model, [batch])
    for ours, theirs in zip(batchnorm_layers(model), batchnorm_layers(reference), strict=True):
        torch.testing.assert_close(ours.running_mean, theirs.running_mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.running_var, theirs.running_var, rtol=1e-4, atol=1e-5)


def test_several_batches_are_pooled_in_every_layer() -> None:
    """Against all inputs of the last layer, kept and reduced at once; the lone last image is counted too."""
    model = tiny_shufflenet()
    last = list(batchnorm_layers(model))[-1]
    seen: list[torch.Tensor] = []
    handle = last.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].double()))
    adapt_statistics(model, images(9, 64).split(4))
    handle.remove()
    values = torch.cat(seen).transpose(0, 1).flatten(1)
    assert [len(inputs) for inputs in seen] == [4, 5]
    torch.testing.assert_close(last.running_mean.double(), values.mean(1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(last.running_var.double(), values.var(1), rtol=1e-5, atol=1e-6)


def batchnorm_digest(model: StagedModel) -> str:
    names = (".running_mean", ".running_var")
    return state_digest({name: one for name, one in model.original_state().items() if name.endswith(names)})


def test_only_means_and_variances_change() -> None:
    model = tiny_shufflenet()
    model.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    digest = batchnorm_digest(model)
    adapt_statistics(model, [images(8, 32)])
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name.rpartition(".")[2] for name in changed} == {"running_mean", "running_var"}
    assert len(changed) == 2 * sum(1 for _ in batchnorm_layers(model))
    assert not any(module.training for module in model.modules())
    assert batchnorm_digest(model) != digest
    model.freeze(2, "adapt")
    adapted = batchnorm_digest(model)
    model.train()
    model(images(8, 32))
    assert batchnorm_digest(model) == adapted


def test_no_images_and_no_batchnorm() -> None:
    model = tiny_shufflenet()
    before = batchnorm_digest(model)
    for too_few in ([], [images(1, 32)]):
        with pytest.raises(ValueError, match="at least two images"):
            adapt_statistics(model, too_few)
    assert batchnorm_digest(model) == before
    transformer = tiny_vit()
    state = {name: tensor.clone() for name, tensor in transformer.state_dict().items()}
    adapt_statistics(transformer, [images(2, 32)])
    assert all(torch.equal(tensor, state[name]) for name, tensor in transformer.state_dict().items())
