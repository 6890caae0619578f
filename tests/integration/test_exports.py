"""Models that travel: a search on real drawings, and its models read by other programs without tlsearch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import read_exports
from homes import Home
from numpy.typing import NDArray
from without_tlsearch import run_without_tlsearch

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]

SIZES = {"mobilenet_v2": 96, "timm/tf_efficientnet_lite0": 96, "timm/vit_small_patch14_dinov2": 98}
WEIGHTS = {
    "mobilenet_v2": "mobilenet_v2.pth",
    "timm/tf_efficientnet_lite0": "tf_efficientnet_lite0.pth",
    "timm/vit_small_patch14_dinov2": "vit_small_patch14_dinov2.safetensors",
}
SPACE = """
name: travel
data: {{source: folder, path: {data}, image_size: {size}}}
weights: {{{backbone}: {weights}}}
space: {{backbone: {backbone}, unfreeze_depth: {{int: [0, 1]}}, head_lr: {{log: [1.0e-4, 1.0e-2]}}}}
search: {{trials: 2, max_epochs: 2, scheduler: none, starting_points: none}}
storage: {home}/tlsearch_runs
tracking: {{uri: "{uri}"}}
"""
# The program, the format it reads, and the packages of its environment; torchvision resizes for the others, too.
PROGRAMS = [
    ("onnx", "onnx", ("onnxruntime", "torchvision")),
    ("timm", "hf", ("timm",)),
    ("transformers", "hf", ("transformers", "timm")),
    ("openvino", "openvino", ("openvino", "torchvision")),
]


def _export(home: Home, form: str, *options: str) -> tuple[Path, Any]:
    path = home.root / "_".join(["out", form, *options])
    if path.exists():
        return path, None
    text = home.run("export", "travel", "--format", form, "--output", str(path), "--json", *options)
    return path, json.loads(text)


def _read(
    program: str, path: Path, images: Path, packages: Sequence[str]
) -> tuple[list[str], list[str], NDArray[np.float64]]:
    """What a program says of the images in an environment of its own: their paths, labels, and logits (N, C)."""
    answers = path.with_name(f"{path.name}_{program}.json")
    script = Path(read_exports.__file__)
    run_without_tlsearch(script, program, *map(str, (path, images, answers)), cwd=path.parent, packages=packages)
    found = json.loads(answers.read_text(encoding="utf-8"))
    logits = np.array(found["logits"])
    return found["paths"], [found["labels"][place] for place in logits.argmax(1)], logits


@pytest.mark.parametrize("backbone", SIZES)
def test_a_model_says_the_same_wherever_it_is_loaded(
    tmp_path: Path, emoji_path: Path, weights_path: Path, backbone: str
) -> None:
    """On all validation images; in 8-bit integers it is not convincingly worse."""
    for _, _, (package, *_) in PROGRAMS:
        pytest.importorskip(package, reason="an optional extra")
    home = Home(tmp_path)
    values = {"data": emoji_path, "size": SIZES[backbone], "backbone": backbone}
    values |= {"weights": weights_path / WEIGHTS[backbone], "home": tmp_path, "uri": home.tracking_uri}
    (tmp_path / "space.yaml").write_text(SPACE.format(**values))
    home.run("run", "space.yaml", "--name", "travel", timeout_s=900)
    val = emoji_path / "val"
    predictions = json.loads(home.run("predict", "travel", "--data", str(emoji_path), "--json"))["predictions"]
    expected = {Path(one["path"]).relative_to(val).as_posix(): one["label"] for one in predictions}
    first: Any = None
    for program, form, packages in PROGRAMS:
        paths, labels, logits = _read(program, _export(home, form)[0], val, packages)
        assert labels == [expected[path] for path in paths], program
        first = logits if first is None else first
        assert np.abs(logits - first).max() < 1e-3, program
    path, result = _export(home, "onnx", "--int8")
    test = result["int8"]["test"]
    assert test["num_images"] == len(expected) and (test["difference"] > 0 or test["p_value"] > 0.01)
    paths, labels, _ = _read("onnx", path, val, PROGRAMS[0][2])
    right = [label == Path(one).parent.name for one, label in zip(paths, labels, strict=True)]
    assert np.mean(right) == pytest.approx(result["int8"]["accuracy"])
