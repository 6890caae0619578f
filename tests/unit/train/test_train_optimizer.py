"""Optimisers, schedules and the groups that join later."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tlsearch.core.types import TrialConfig
from tlsearch.model import StagedModel
from tlsearch.train.optim.optimizer import FusedStep, build_optimizer, extend_optimizer, learning_rates, set_rates
from tlsearch.train.optim.schedules import Schedule, join_factor

Build = Callable[..., StagedModel]
STEPS = 10


def config(**values: object) -> TrialConfig:
    return TrialConfig(**({"backbone": "tiny", "unfreeze_depth": 5, "head_lr": 0.1, "backbone_lr": 0.01} | values))


def factors(**values: object) -> list[float]:
    schedule = Schedule(**({"max_epochs": 10} | values))
    return [schedule.factor(position, STEPS) for position in range(10 * STEPS)]


def test_layer_decay_lowers_the_rate_of_each_stage_further_down(tiny_model: Build) -> None:
    model = tiny_model()
    model.freeze(5, "train")
    rates = learning_rates(build_optimizer(model, config(layer_decay=0.5)))
    expected = {"head": 0.1, "stage4": 0.01, "stage3": 0.005, "stage2": 0.0025, "stage1": 0.00125, "stem": 0.000625}
    assert rates == pytest.approx(expected)
    flat = learning_rates(build_optimizer(model, config()))
    assert set(flat.values()) == {0.1, 0.01}


def test_sgd_is_nesterov_with_momentum(tiny_model: Build) -> None:
    model = tiny_model()
    model.freeze(1, "train")
    optimizer = build_optimizer(model, config(optimizer="sgd", unfreeze_depth=1))
    assert isinstance(optimizer, torch.optim.SGD)
    assert all(group["nesterov"] and group["momentum"] == 0.9 for group in optimizer.param_groups)
    assert isinstance(build_optimizer(model, config(unfreeze_depth=1)), torch.optim.AdamW)


def test_constant_is_one_and_warmup_rises_in_equal_steps() -> None:
    assert set(factors()) == {1.0}
    warm = factors(warmup_epochs=2)
    assert warm[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert set(warm[20:]) == {1.0}


@pytest.mark.parametrize("warmup_epochs", [0, 3])
def test_cosine_is_torchs_after_the_warmup(warmup_epochs: int) -> None:
    rise = warmup_epochs * STEPS
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10 * STEPS - rise)
    expected = []
    for _ in range(10 * STEPS - rise):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    assert factors(kind="cosine", warmup_epochs=warmup_epochs)[rise:] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("warmup_epochs", "top"), [(0, 30), (2, 20)])
def test_one_cycle_rises_then_falls_to_nothing(warmup_epochs: int, top: int) -> None:
    cycle = factors(kind="one_cycle", warmup_epochs=warmup_epochs)
    assert cycle[0] == pytest.approx(1 / 25)
    assert cycle[top] == 1.0
    assert cycle[:top] == sorted(cycle[:top]) and cycle[top:] == sorted(cycle[top:], reverse=True)
    assert 0 < cycle[-1] < 1e-3


def test_a_group_that_joins_keeps_the_others_state_and_warms_up_alone(tiny_model: Build) -> None:
    model = tiny_model()
    model.freeze(0, "train")
    optimizer = build_optimizer(model, config(layer_decay=0.5))
    for epoch in (1, 2):
        for step in range(STEPS):
            set_rates(optimizer, Schedule(max_epochs=4), epoch=epoch, step=step, steps_per_epoch=STEPS)
            model(torch.randn(8, 3, 32, 32)).square().mean().backward()
            optimizer.step()
    before = {id(p): {k: v.clone() for k, v in state.items()} for p, state in optimizer.state.items()}
    assert len(before) == 2
    model.freeze(2, "train")
    extend_optimizer(optimizer, model, config(layer_decay=0.5), epoch=3)
    names = [group["name"] for group in optimizer.param_groups]
    assert names[:2] == ["head", "head/no_decay"]
    assert {name.partition("/")[0] for name in names} == {"head", "stage4", "stage3"}
    for parameter, state in optimizer.state.items():
        assert all(torch.equal(value, before[id(parameter)][key]) for key, value in state.items())
    rates = []
    for step in range(STEPS):
        set_rates(optimizer, Schedule(max_epochs=4), epoch=3, step=step, steps_per_epoch=STEPS)
        rates.append(learning_rates(optimizer))
    assert {rate["head"] for rate in rates} == {0.1}
    assert [rate["stage4"] for rate in rates[:5]] == pytest.approx([0.002, 0.004, 0.006, 0.008, 0.01])
    assert {rate["stage4"] for rate in rates[5:]} == {0.01}
    assert rates[-1]["stage3"] == pytest.approx(0.005)


def test_the_warmup_of_a_stage_is_short() -> None:
    assert join_factor(99, 10_000) == 1.0 and join_factor(0, 10_000) == 0.01
    assert join_factor(0, 1) == 1.0


def test_an_optimizer_that_would_hold_other_tensors_is_refused(tiny_model: Build) -> None:
    model = tiny_model()
    model.freeze(1, "frozen")
    model.head.requires_grad_(False)
    with pytest.raises(AssertionError, match="the new head must train"):
        build_optimizer(model, config())


def _stepped(model: StagedModel, *, quick: bool, steps: int = 5, **values: object) -> torch.optim.Optimizer:
    """An optimiser after some steps of given gradients, at rates that move."""
    model.freeze(0, "frozen")
    optimizer = build_optimizer(model, config(unfreeze_depth=0, weight_decay=0.5, **values))
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    generator = torch.Generator().manual_seed(1)
    for parameter in held:
        parameter.grad = torch.empty_like(parameter)
    apply = FusedStep(optimizer) if quick else optimizer.step
    for step in range(steps):
        for parameter in held:
            parameter.grad.copy_(torch.randn(parameter.shape, generator=generator))
        schedule = Schedule(kind="cosine", max_epochs=1)
        set_rates(optimizer, schedule, epoch=1, step=step, steps_per_epoch=steps)
        apply()
    return optimizer


@pytest.mark.parametrize("values", [{"optimizer": "adamw"}, {"optimizer": "sgd"}])
def test_quick_steps_are_the_optimisers_own_to_the_bit(tiny_model: Build, values: dict[str, object]) -> None:
    models = [tiny_model(), tiny_model()]
    own = _stepped(models[0], quick=False, **values)
    quick = _stepped(models[1], quick=True, **values)
    for name, tensor in models[0].head.state_dict().items():
        assert torch.equal(tensor, models[1].head.state_dict()[name])
    for state, other in zip(own.state.values(), quick.state.values(), strict=True):
        assert state.keys() == other.keys()
        assert all(torch.equal(value, other[name]) for name, value in state.items())


def test_a_parameter_without_a_gradient_stays_where_it_is(tiny_model: Build) -> None:
    models = [tiny_model(), tiny_model()]
    for model, quick in zip(models, (False, True), strict=True):
        optimizer = _stepped(model, quick=quick)
        held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        apply = FusedStep(optimizer) if quick else optimizer.step
        apply()
        held[0].grad = None
        apply()
    for name, tensor in models[0].head.state_dict().items():
        assert torch.equal(tensor, models[1].head.state_dict()[name])


def test_quick_steps_of_adamw_pass_by_the_optimisers_step(tiny_model: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    for kind in (torch.optim.AdamW, torch.optim.SGD):
        step = kind.step
        monkeypatch.setattr(kind, "step", lambda optimizer, step=step: calls.append(type(optimizer)) or step(optimizer))
    _stepped(tiny_model(), quick=True, optimizer="adamw")
    _stepped(tiny_model(), quick=True, optimizer="sgd")
    assert calls == 5 * [torch.optim.SGD]
