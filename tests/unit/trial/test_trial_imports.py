"""What a trial imports: PyTorch's compilers take 0.8 s of CPU, in every worker, and train nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tlsearch.core.codec import to_plain
from tlsearch.core.types import TrialAssignment, WeightsSource

Assign = Callable[..., TrialAssignment]
COMPILERS = ("torch._dynamo", "torch._inductor", "sympy")
RUN = f"""
import json, sys
from tlsearch.core.codec import from_plain
from tlsearch.core.types import TrialAssignment
from tlsearch.trial import FineTuning

trial = FineTuning(from_plain(TrialAssignment, json.load(sys.stdin)))
for _ in range(2):
    trial.step()
trial.close()
print([name for name in {COMPILERS} if name in sys.modules])
"""


@pytest.mark.parametrize("depth", [0, 2])
def test_a_trial_imports_no_compiler(assign: Assign, weights_file: Path, depth: int) -> None:
    weights = {"mobilenet_v3_small": WeightsSource(kind="file", path=str(weights_file))}
    assignment = assign(depth=depth, head_init="probe", setup={"weights": weights})
    done = subprocess.run(
        [sys.executable, "-c", RUN], input=json.dumps(to_plain(assignment)), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
