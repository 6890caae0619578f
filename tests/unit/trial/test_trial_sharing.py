"""What two searches and two workers share: every image is decoded once, and sees every part of a prefix once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor

from tlsearch.core.types import Decision, EpochReport, TrialAssignment, WeightsSource
from tlsearch.data.packed import streamed
from tlsearch.model import PART_NAMES, StagedModel
from tlsearch.search.worker.messages import Job, pack
from tlsearch.trial import inputs as sources
from tlsearch.trial import release_held, run_trial

Assign = Callable[..., TrialAssignment]
BACKBONE = "mobilenet_v3_small"
IMAGES = 30 + 21
DEPTHS = (0, 1, 2)


class Silent:
    """A reporter that never stops a trial."""

    def report(self, report: EpochReport) -> Decision:
        assert report.source == "features"
        return Decision.CONTINUE


@pytest.fixture
def pretrained(assign: Assign, tmp_path: Path) -> Assign:
    """Assignments with weights from a file: one prefix for every seed, as a search has."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        torch.save(torchvision.models.get_model(BACKBONE, num_classes=3).state_dict(), tmp_path / "weights.pth")

    def build(directory: str, *, depth: int, **more: Any) -> TrialAssignment:
        backbone_lr = 1e-5 if depth else None  # pretrained features must not be distorted
        assignment = assign(directory, depth=depth, backbone_lr=backbone_lr, setup={"depths": DEPTHS}, **more)
        source = WeightsSource(kind="file", path=str(tmp_path / "weights.pth"))
        return replace(assignment, setup=replace(assignment.setup, weights={BACKBONE: source}))

    return build


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Images that went through each part of a prefix, and images decoded."""
    done: Counter[str] = Counter()
    whole, decode = StagedModel.forward_prefix, streamed.decode_image

    def forward(model: StagedModel, rows: Tensor, depth: int, *, behind: int = 5) -> Tensor:
        done.update(dict.fromkeys(PART_NAMES[5 - behind : 5 - depth], len(rows)))
        return whole(model, rows, depth, behind=behind)

    def decoded(*args: Any, **limits: Any) -> Any:
        done["decoded"] += 1
        return decode(*args, **limits)

    monkeypatch.setattr(StagedModel, "forward_prefix", forward)
    monkeypatch.setattr(streamed, "decode_image", decoded)
    monkeypatch.setattr(
        sources, "_not_worth", lambda model, context, depth: None
    )  # of images so small no map is worth it
    return done


def test_a_second_search_computes_no_prefix_and_decodes_no_image(pretrained: Assign, work: Counter[str]) -> None:
    for depth in DEPTHS:
        assert run_trial(pretrained(f"first/{depth}", depth=depth), Silent()).reason == "completed"
    assert work == dict.fromkeys((*PART_NAMES[:5], "decoded"), IMAGES)
    work.clear()
    release_held()  # as a new process: nothing but the files is left
    for number, depth in enumerate(DEPTHS[::-1]):
        again = pretrained(f"second/{number}", depth=depth, seed=7 + number, head_lr=3e-3, batch_size=16)
        assert run_trial(again, Silent()).reason == "completed"
    assert not work


_WORKER = """
import json, sys
from collections import Counter
from tlsearch.data.packed import streamed
from tlsearch.model import PART_NAMES, StagedModel
from tlsearch.search.worker.messages import unpack_job
from tlsearch.trial import FineTuning, inputs

done = Counter()
whole, decode = StagedModel.forward_prefix, streamed.decode_image

def forward(model, rows, depth, *, behind=5):
    done.update(dict.fromkeys(PART_NAMES[5 - behind : 5 - depth], len(rows)))
    return whole(model, rows, depth, behind=behind)

def decoded(*args, **limits):
    done["decoded"] += 1
    return decode(*args, **limits)

StagedModel.forward_prefix, streamed.decode_image = forward, decoded
inputs._not_worth = lambda model, context, depth: None
print("ready", flush=True)
for line in sys.stdin:
    trial = FineTuning(unpack_job(json.loads(line)).assignment)
    report = trial.step()
    trial.close()
    print(json.dumps({"loss": report.metrics["val_loss"], "source": report.source, "done": done}), flush=True)
"""


@pytest.mark.slow
def test_two_workers_at_once_compute_each_prefix_once(pretrained: Assign) -> None:
    workers = [
        subprocess.Popen([sys.executable, "-c", _WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers: list[list[dict[str, Any]]] = []
    try:
        for worker in workers:
            assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
        for name, worker in zip("ab", workers, strict=True):  # both begin before either has stored anything
            assert worker.stdin is not None
            for depth in DEPTHS:
                job = Job(assignment=pretrained(f"{name}/{depth}", depth=depth), reported=0, max_failures=0)
                worker.stdin.write(json.dumps(pack(job)) + "\n")
            worker.stdin.close()
        for worker in workers:
            assert worker.stdout is not None
            answers.append([json.loads(line) for line in worker.stdout])
            assert worker.wait(timeout=480) == 0
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
            for pipe in (worker.stdin, worker.stdout):
                assert pipe is not None
                pipe.close()
    assert [len(each) for each in answers] == [len(DEPTHS)] * 2
    assert {answer["source"] for each in answers for answer in each} == {"features"}
    total = sum((Counter(each[-1]["done"]) for each in answers), Counter())
    assert total == dict.fromkeys((*PART_NAMES[:5], "decoded"), IMAGES)
    assert [a["loss"] for a in answers[0]] == [a["loss"] for a in answers[1]]
