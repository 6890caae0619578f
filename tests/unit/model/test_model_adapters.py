"""Adapted stages: nothing changes at first, only what is to train does, and merged weights compute the same."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import model_cases as cases
import pytest
import torch
import torchvision.models as tv
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer

from tlsearch.core.types import ModelSpec
from tlsearch.model import MAX_DEPTH, PART_NAMES, Adaptation, StagedModel, adapted_parameters, parameter_groups
from tlsearch.model.adapters.adapters import LORA_FACTOR
from tlsearch.model.adapters.targets import is_norm
from tlsearch.model.build import replace_head
from tlsearch.model.libraries.libraries import create_original
from tlsearch.model.staging.cut import stage_model
from tlsearch.model.staging.token_features import take_features
from tlsearch.space.adapt_methods import ADAPT_METHODS, PLAIN
from tlsearch.space.bn_policies import BN_POLICIES, bn_policy
from tlsearch.space.libraries.backbones import backbone_facts

METHODS = tuple(name for name in ADAPT_METHODS if name != PLAIN.name)
VIT = "timm/test_vit3"


def tiny_swin() -> StagedModel:
    """Attention that reads the weights of its linear layers itself; patch merging; stochastic depth."""
    model = tv.SwinTransformer([4, 4], 8, [1, 1, 1, 1], [1, 1, 2, 2], [2, 2], stochastic_depth_prob=0.5)
    return cases.staged_with_new_head(model, "tiny_swin", 64)


def timm_vit() -> StagedModel:
    pytest.importorskip("timm")
    return cases.staged_with_new_head(create_original(VIT, None, 32, random_init=False), VIT, 32)


def vit_of_tokens() -> StagedModel:
    """The head sees the class tokens of four blocks, each through the norm."""
    model = stage_model(VisionTransformer(32, 8, 12, 2, 16, 32, dropout=0.3), "tiny_vit", 32)
    cases.fill_cheaply(model)
    take_features(model, "last4")
    replace_head(model, num_classes=3, seed=0)
    return model


TRANSFORMERS: dict[str, Callable[[], StagedModel]] = {
    "vit": cases.tiny_vit,
    "swin": tiny_swin,
    "timm": timm_vit,
    "tokens": vit_of_tokens,
}
CASES = [(kind, method) for kind in TRANSFORMERS for method in METHODS]


def adapted(model: StagedModel, method: str, depth: int, policy: str | None = None, seed: int = 0) -> StagedModel:
    model.adapt_by(Adaptation(method=method, rank=4 if method == "lora" else None, seed=seed))
    model.freeze(depth, policy)
    return model


def copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


def train(model: StagedModel, *, steps: int = 3) -> None:
    groups = parameter_groups(model, head_lr=1e-2, backbone_lr=1e-2, weight_decay=1e-2)
    optimizer = torch.optim.AdamW(groups)
    batch, labels = cases.images(6, model.image_size), torch.tensor([0, 1, 2, 0, 1, 2])
    for _ in range(steps):
        model.train()
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(batch), labels).backward()
        optimizer.step()
    model.eval()


@pytest.mark.parametrize(("kind", "method"), CASES)
def test_an_adapted_model_begins_as_it_was(kind: str, method: str) -> None:
    model = TRANSFORMERS[kind]().eval()
    batch = cases.images(3, model.image_size)
    with torch.no_grad():
        before = model(batch)
        assert torch.equal(adapted(model, method, MAX_DEPTH)(batch), before)


@pytest.mark.parametrize(("kind", "method"), CASES)
@pytest.mark.parametrize("depth", [1, 3])
def test_exactly_what_a_method_trains_changes(kind: str, method: str, depth: int) -> None:
    model = TRANSFORMERS[kind]()
    plain = copied(model.state_dict())
    changing = adapted(model, method, depth).changing_names(depth, None)
    frozen, trainable = copied(model.frozen_state()), copied(model.trainable_parameters())
    train(model)

    assert all(torch.equal(tensor, frozen[name]) for name, tensor in model.frozen_state().items())
    now = model.trainable_parameters()
    assert now.keys() == trainable.keys()
    assert not [name for name, tensor in now.items() if torch.equal(tensor, trainable[name])]
    thawed = PART_NAMES[MAX_DEPTH - depth :]
    assert {name.partition(".")[0] for name in now} == set(thawed)

    merged = model.merged_state()
    assert {name: tensor.shape for name, tensor in merged.items()} == {name: t.shape for name, t in plain.items()}
    changed = {name for name, tensor in merged.items() if not torch.equal(tensor, plain[name])}
    assert changed == changing and merged.keys() > changing
    assert_same(model.merged_state(changing), {name: merged[name] for name in changing})
    norms = {name for name, module in model.named_modules() if is_norm(module)}
    for name in (name for name in changed if not name.startswith("head.")):
        of_norm, is_bias = name.rpartition(".")[0] in norms, name.endswith("bias")
        assert {"lora": not of_norm and not is_bias, "ssf": True, "bitfit": is_bias, "norm": of_norm}[method], name
    if method in ("lora", "ssf"):
        of_backbone = {name for name in changed if not name.startswith("head.")}
        assert of_backbone <= frozen.keys(), "what they are merged from stands still"


@pytest.mark.parametrize(("kind", "method"), CASES)
@pytest.mark.parametrize("autocast", [False, True])
def test_the_merged_model_computes_the_same(kind: str, method: str, autocast: bool) -> None:
    model = TRANSFORMERS[kind]()
    plain, batch = copy.deepcopy(model).eval(), cases.images(4, model.image_size)
    train(adapted(model, method, 3))
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        other = plain(batch)
        plain.load_state_dict(model.merged_state())
        assert torch.allclose(model(batch), plain(batch), rtol=0, atol=1e-5)
        assert not torch.allclose(other, plain(batch), rtol=0, atol=1e-2)


@contextmanager
def on_outputs(model: StagedModel, method: str) -> Iterator[None]:
    """The definitions of the papers: on what layers are given and put out, not on their weights."""
    handles = []
    for part in model.parts[:-1]:
        adapters = dict(part.adapters.items()) if part.adapters is not None else {}
        for key, adapter in adapters.items():
            layer = part.get_submodule(key.replace("/", "."))

            def after(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, one: nn.Module = adapter) -> Tensor:
                if method == "lora":
                    return output + LORA_FACTOR * (inputs[0] @ one.down.T) @ one.up.T
                shift = 0 if one.shift is None else one.shift
                return output * one.scale + shift

            handles.append(layer.register_forward_hook(after))
    model.adapt_by(None)
    yield
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("method", ["lora", "ssf"])
def test_adapters_are_those_of_their_papers(method: str) -> None:
    model = timm_vit()
    train(adapted(model, method, 2))
    batch = cases.images(4, model.image_size)
    with torch.inference_mode():
        expected, before = model(batch), model.head(timm_vit().eval().forward_prefix(batch, 0))
        with on_outputs(model, method):
            assert torch.allclose(model(batch), expected, rtol=0, atol=1e-5)
    assert not torch.allclose(before, expected, rtol=0, atol=1e-2)


def test_adapters_of_a_stage_join_with_it_and_are_the_same_whenever() -> None:
    late, at_once = timm_vit(), adapted(timm_vit(), "lora", 2, seed=5)
    adapted(late, "lora", 0, seed=5)
    assert all(part.adapters is None for part in late.parts)
    late.freeze(1, None)
    assert late.stage4.adapters is not None and late.stage3.adapters is None
    held = set(map(id, late.stage4.adapters.parameters()))
    late.freeze(2, None)
    assert set(map(id, late.stage4.adapters.parameters())) == held
    for name, tensor in at_once.state_dict().items():
        assert torch.equal(late.state_dict()[name], tensor), name
    other = adapted(timm_vit(), "lora", 2, seed=6).state_dict()
    assert any(not torch.equal(other[name], tensor) for name, tensor in at_once.state_dict().items())


@pytest.mark.parametrize("policy", BN_POLICIES)
@pytest.mark.parametrize("method", ["bitfit", "norm"])
def test_the_method_decides_about_scale_and_shift_and_the_policy_about_statistics(method: str, policy: str) -> None:
    model = cases.tiny_shufflenet()
    changing = adapted(model, method, 2, policy).changing_names(2, policy)
    before = copied(model.state_dict())
    train(model)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == changing
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    moved = {name for name in changed if name.rpartition(".")[0] in norms}
    ends = ("bias",) if method == "bitfit" else ("weight", "bias")
    thawed = {name for name in norms if name.startswith(("stage3", "stage4"))}
    assert {name for name in moved if name.endswith(ends)} == {f"{name}.{end}" for name in thawed for end in ends}
    row = bn_policy(policy)
    statistics = {name.rpartition(".")[0] for name in moved if name.endswith("running_mean")}
    assert statistics == (norms if row.moves_in_frozen else thawed if row.moves_in_trainable else set())


def test_low_rank_updates_decay_and_scales_do_not() -> None:
    for method, decays in (("lora", True), ("ssf", False)):
        model = adapted(timm_vit(), method, 2)
        groups = parameter_groups(model, head_lr=1.0, backbone_lr=0.1, weight_decay=0.5, layer_decay=0.5)
        found = {group["name"]: (group["lr"], group["weight_decay"]) for group in groups}
        end, decay = ("", 0.5) if decays else ("/no_decay", 0.0)
        assert found == {
            "head": (1.0, 0.5),
            "head/no_decay": (1.0, 0.0),
            f"stage4{end}": (0.1, decay),
            f"stage3{end}": (0.05, decay),
        }


def test_a_copy_of_an_adapted_model_shares_nothing_with_it_and_dropping_adapters_leaves_the_plain_model() -> None:
    model = timm_vit().eval()
    batch = cases.images(2, model.image_size)
    with torch.no_grad():
        before = model.forward_prefix(batch, 0)
        adapted(model, "ssf", 2)
        twin = copy.deepcopy(model)
        for parameter in model.trainable_parameters().values():
            parameter.add_(0.5)
        assert torch.equal(twin.forward_prefix(batch, 0), before)
        assert not torch.equal(model.forward_prefix(batch, 0), before)
        model.adapt_by(None)
        assert torch.equal(model.forward_prefix(batch, 0), before)
        assert list(model.state_dict()) == list(timm_vit().state_dict())


def check_row(name: str, model: StagedModel) -> None:
    """A method trains something of every stage of a backbone that has what it needs; norms are not anywhere else."""
    facts = backbone_facts(name)
    if facts is None:
        pytest.skip("the table leaves it out")
    stages = dict(zip(PART_NAMES[1:5], model.parts[1:5], strict=True))
    for method in METHODS:
        need, adaptation = ADAPT_METHODS[method].need, Adaptation(method=method, rank=1)
        empty = [stage for stage, part in stages.items() if not adaptation.changed(part)]
        if need.met(facts):
            assert not empty, f"{name}: {method} trains nothing of {', '.join(empty)}"
        elif method == "norm":
            assert len(empty) == len(stages), f"{name} has norms"


@pytest.mark.parametrize("name", cases.FAMILY_MEMBERS)
def test_the_table_knows_what_backbones_have(name: str) -> None:
    check_row(name, cases.meta_staged(name))


_QUICK = ("test_vit3", "nf_regnet_b0", "swinv2_tiny_window8_256")


@pytest.mark.parametrize(
    "name", [one if one in _QUICK else pytest.param(one, marks=pytest.mark.slow) for one in cases.TIMM_SIZES]
)
def test_the_table_knows_what_timms_backbones_have(name: str) -> None:
    pytest.importorskip("timm")
    check_row(f"timm/{name}", cases.meta_staged(f"timm/{name}"))


def test_parameters_are_counted_without_memory() -> None:
    pytest.importorskip("timm")
    spec = ModelSpec(backbone=VIT, num_classes=3, image_size=32)
    for method in METHODS:
        counted = adapted_parameters(spec, method, 4 if method == "lora" else None)
        for depth in (0, 2, 5):
            model = adapted(timm_vit(), method, depth)
            assert counted[depth] == sum(one.numel() for one in model.trainable_parameters().values())
