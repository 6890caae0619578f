"""One file with twelve errors of twelve kinds: all are listed, each in its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tlsearch.core.errors import SpaceError
from tlsearch.space import load

TEXT = """\
name: twelve
data:
  source: digits
  image_size: 70                                   # a size that vit_b_16 cannot take
  spilt: {val: 0.2}                                # an unknown key
weights:
  resnet18: ./weights/absent.pth                   # a file that does not exist
  resnet81: none                                   # no such backbone
space:
  backbone: [resnet18, vit_b_16]
  unfreeze_depth: {int: [0, 7]}                    # outside 0..5
  head_lr: {log: [1.0e-1, 1.0e-4]}                 # ends crossed
  weight_decay: {log: [0.0, 0.1]}                  # log from 0
  bn_policy: [frozen, trian]                       # no such choice
  mixup: twice                                     # not a number
search:
  trials: twelve                                   # a wrong type
  max_epochs: 3
  scheduler: {asha: {grace_period: 5}}             # beyond max_epochs
  metric: val_loss
  metric: val_accuracy                             # twice
"""

EXPECTED = {
    4: ("data.image_size", "multiples of 16 px"),
    5: ("data.spilt", "did you mean 'split'"),
    7: ("weights.resnet18", "does not exist"),
    8: ("weights.resnet81", "did you mean 'resnet18'"),
    11: ("space.unfreeze_depth.int[1]", "from 0 to 5, not 7"),
    12: ("space.head_lr.log", "0.1 is above 0.0001"),
    13: ("space.weight_decay.log[0]", "begins above 0"),
    14: ("space.bn_policy[1]", "did you mean 'train'"),
    15: ("space.mixup", "numbers from 0 to 10, not 'twice'"),
    17: ("search.trials", "a whole number, not 'twelve'"),
    19: ("search.scheduler.asha.grace_period", "at most max_epochs, 3 (line 18), not 5"),
    21: ("search.metric", "may stand only once"),
}


def test_twelve_problems_are_listed_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(TEXT)
    with pytest.raises(SpaceError) as caught:
        load(path)
    found = caught.value.faults
    assert [problem.line for problem in found] == sorted(EXPECTED)
    for problem in found:
        dotted, words = EXPECTED[problem.line]
        assert problem.dotted == dotted
        assert words in problem.message
        assert problem.file == str(path) and problem.column > 0
        assert str(problem).startswith(f"{path}:{problem.line}:{problem.column}: {dotted}: ")
