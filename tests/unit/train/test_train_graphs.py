"""What only CUDA does: graphs of steps, readings and copies that nothing waits for, each with a twin on the CPU."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from small_sources import features_of, pixels
from torch import Tensor, nn

from tlsearch.core.types import TrialConfig
from tlsearch.model import StagedModel
from tlsearch.train import Runtime, Source, Trainer, copy_to_host, evaluate
from tlsearch.train.cuda.graphs import StepGraphs, record_graph
from tlsearch.train.loop import trainer as trainer_module
from tlsearch.train.loop.evaluation import Reading

Build = Callable[..., StagedModel]
CPU, CUDA = (Runtime(device=torch.device(name)) for name in ("cpu", "cuda"))
needs_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def trained(
    model: StagedModel, source: Source, runtime: Runtime, *, depth: int = 2, **values: Any
) -> tuple[list[float], dict[str, Tensor], Trainer]:
    """The losses of three epochs, the state after them, and the trainer."""
    model.to(runtime.device).freeze(depth, "frozen")
    rates = {"head_lr": 1e-2, "backbone_lr": 1e-3 if depth else None}
    config = TrialConfig(
        backbone="tiny",
        unfreeze_depth=depth,
        bn_policy="frozen",
        batch_size=8,
        **({**rates, "head_dropout": 0} | values),
    )
    job = Trainer(model, runtime, config, depth=depth, num_classes=3, max_epochs=3)
    losses = [job.train_epoch(source, seed=3, epoch=epoch).loss for epoch in (1, 2, 3)]
    return losses, {name: tensor.cpu() for name, tensor in model.state_dict().items()}, job


class Replays:
    """In place of CUDA's graphs: a replay computes again, into the tensors of the recording."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def graphs(self, compute: Any, parameters: Sequence[nn.Parameter]) -> StepGraphs:
        def record(function: Callable[[], tuple[Tensor, Tensor]]) -> tuple[tuple[Tensor, Tensor], Callable[[], None]]:
            self.recorded += 1
            figures = tuple(figure.clone() for figure in function())
            gradients = [parameter.grad for parameter in parameters]

            def replay() -> None:
                self.replayed += 1
                for held, new in zip(figures, function(), strict=True):
                    held.copy_(new)
                for gradient, parameter in zip(gradients, parameters, strict=True):
                    gradient.copy_(parameter.grad)  # type: ignore[union-attr, arg-type]

            return figures, replay  # type: ignore[return-value]

        return StepGraphs(compute, parameters, record=record)


@pytest.mark.parametrize("values", [{}, {"mixup": 0.4, "grad_clip": 0.5}, {"optimizer": "sgd", "ema": 0.9}])
def test_replayed_steps_train_as_eager_ones(
    tiny_model: Build, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any]
) -> None:
    eager = trained(tiny_model(), pixels(30), CPU, **values)
    replays = Replays()
    monkeypatch.setattr(trainer_module, "captures_steps", lambda *_: True)
    monkeypatch.setattr(trainer_module, "StepGraphs", replays.graphs)
    losses, state, job = trained(tiny_model(), pixels(30), CPU, **values)
    assert losses == eager[0] and all(torch.equal(tensor, eager[1][name]) for name, tensor in state.items())
    assert (replays.recorded, replays.replayed) == (2, 3 * 4 - 2), "the full batch and the last, each once eagerly"
    job.unfreeze(3, epoch=3)
    job.train_epoch(pixels(30), seed=3, epoch=3)
    assert replays.recorded == 3, "a phase has graphs of its own"


def test_a_model_that_cannot_be_captured_trains_eagerly(tiny_model: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def refuse(function: Callable[[], object]) -> Any:
        calls.append(1)
        raise RuntimeError("operation not permitted when stream is capturing")

    eager = trained(tiny_model(), pixels(30), CPU)
    monkeypatch.setattr(trainer_module, "captures_steps", lambda *_: True)
    monkeypatch.setattr(trainer_module, "StepGraphs", lambda *given: StepGraphs(*given, record=refuse))
    assert trained(tiny_model(), pixels(30), CPU)[0] == eager[0]
    assert len(calls) == 1


def test_a_capture_binds_its_own_thread_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []

    class Graph:
        def replay(self) -> None: ...

    @contextmanager
    def capture(graph: Graph, *, capture_error_mode: str = "global") -> Iterator[None]:
        modes.append(capture_error_mode)
        yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    figures = torch.ones(()), torch.zeros(())
    assert record_graph(lambda: figures)[0] is figures
    assert modes == ["thread_local"], "a thread that pins memory meanwhile would fail, and the capture with it"


def test_a_copy_is_of_the_moment(tiny_model: Build) -> None:
    state = tiny_model().state_dict()
    before = {name: tensor.clone() for name, tensor in state.items()}
    copies = copy_to_host(state)
    for tensor in state.values():
        tensor.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in copies().items())


class TestOnADevice:
    """The same on CUDA."""

    pytestmark = needs_gpu

    def test_graphs_train_as_eager_steps(self, tiny_model: Build, monkeypatch: pytest.MonkeyPatch) -> None:
        captured = trained(tiny_model(), pixels(30), CUDA)
        assert any(graphs._captured for graphs in captured[2]._graphs.values()), "nothing was captured"
        assert not any(graphs._fails for graphs in captured[2]._graphs.values())
        monkeypatch.setattr(trainer_module, "captures_steps", lambda *_: False)
        eager = trained(tiny_model(), pixels(30), CUDA)
        assert captured[0] == pytest.approx(eager[0], rel=1e-3)
        for name, tensor in captured[1].items():
            torch.testing.assert_close(tensor, eager[1][name], rtol=1e-2, atol=1e-3)

    def test_captures_and_threads_that_pin_memory_do_not_disturb_each_other(self, tiny_model: Build) -> None:
        stop, failed = threading.Event(), []

        def send() -> None:
            try:
                while not stop.is_set():
                    torch.ones(2**20).pin_memory().to("cuda", non_blocking=True)
            except RuntimeError as error:
                failed.append(error)

        thread = threading.Thread(target=send)
        thread.start()
        jobs = [trained(tiny_model(), pixels(30), CUDA)[2] for _ in range(5)]
        stop.set()
        thread.join()
        assert not failed
        assert not any(graphs._fails for job in jobs for graphs in job._graphs.values())

    @pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
    def test_a_head_trains_as_on_the_cpu(self, tiny_model: Build, precision: Any) -> None:
        source = features_of(tiny_model(), pixels(30), 0)
        host = trained(tiny_model(), source, CPU, depth=0)
        device = trained(tiny_model(), source, Runtime(device=CUDA.device, precision=precision), depth=0)
        assert device[0] == pytest.approx(host[0], rel=1e-3)
        assert evaluate(device[2].model, source, CUDA, depth=0).metrics["val_loss"] == pytest.approx(
            evaluate(host[2].model, source, CPU, depth=0).metrics["val_loss"], rel=1e-2
        )

    def test_readings_and_copies_arrive(self) -> None:
        figures = torch.arange(3.0, device="cuda")
        reading, copies = Reading(figures), copy_to_host({"x": figures})
        figures.zero_()
        assert reading.values() == [0.0, 1.0, 2.0] and reading.arrived
        assert copies()["x"].tolist() == [0.0, 1.0, 2.0]

    def test_bf16_folds_batch_norm_to_its_own_rounding(self, tiny_model: Build) -> None:
        assert Runtime(device=CUDA.device, precision="bf16").folds_batchnorm
        assert not Runtime(device=CUDA.device, precision="fp16").folds_batchnorm
