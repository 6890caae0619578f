"""What all exported formats share: the module that is exported, what describes it, the images it is checked on.

N images, C classes, S side of the crop. All take normalised float32 pixels (N, 3, S, S) and give logits and scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from tlsearch.core.errors import TlsearchError
from tlsearch.data import eval_image, normalise
from tlsearch.results.inference.predictor import Classifier
from tlsearch.train import ModelMeta

TOLERANCE = 1e-4
_SYNTHETIC = 16
_CHECK_BATCH = 25


class ParityError(TlsearchError, RuntimeError):
    """An exported model does not give what the model gives: nothing is handed out."""


class Exported(nn.Module):
    """A classifier with its softmax: normalised pixels (N, 3, S, S) to logits (N, C) and scores (N, C)."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.model = classifier.model
        self.temperature = classifier.meta.temperature

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Scores are softmax(logits / temperature)."""
        logits = self.model(images)
        return logits, torch.softmax(logits / self.temperature, dim=1)


@dataclass(frozen=True, kw_only=True)
class Parity:
    """The largest differences between an exported model and the model, over ``images`` images.

    ``largest_logit``, at least 1, is what the differences are judged by.
    """

    images: int
    real: bool
    logits: float
    scores: float
    largest_logit: float


def description(meta: ModelMeta) -> dict[str, Any]:
    """What a program must know to use an exported model."""
    return {
        "backbone": meta.backbone,
        "labels": list(meta.classes),
        "image_size": meta.image_size,
        "preprocessing": {
            "colour": "RGB",
            "steps": "turn upright (EXIF), lay transparency on white, resize, centre crop, divide by 255, subtract "
            "mean, divide by std; layout NCHW",
            **asdict(meta.transform),
        },
        "temperature": meta.temperature,
        "outputs": "logits; scores = softmax(logits / temperature)",
        "metric": {meta.metric: meta.value},
        "tlsearch_version": meta.tlsearch_version,
    }


def prepared_images(meta: ModelMeta, images: Sequence[Image.Image]) -> Tensor:
    """Normalised pixels (N, 3, S, S) of RGB images; of made-up pictures where there are none."""
    if not images:
        rng = np.random.default_rng(0)
        shape = (meta.image_size, meta.image_size, 3)
        images = [Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)) for _ in range(_SYNTHETIC)]
    pixels = np.stack([eval_image(image, meta.transform) for image in images])
    return normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), meta.transform)


def expected_outputs(classifier: Classifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """The model's own logits and scores."""
    wrapped = Exported(classifier).eval()
    with torch.inference_mode():
        parts = [wrapped(part) for part in torch.split(images, _CHECK_BATCH)]
    return torch.cat([logits for logits, _ in parts]), torch.cat([scores for _, scores in parts])


def check_parity(
    name: str,
    run: Callable[[Tensor], tuple[Tensor, Tensor]],
    images: Tensor,
    expected: tuple[Tensor, Tensor],
    *,
    real: bool,
) -> Parity:
    """Runs an exported model on the images, in batches of two sizes, and compares.

    Raises:
        ParityError: A logit differs by more than TOLERANCE of the largest one (where that is above 1), a score by more
            than what follows from it, or one is not finite.
    """
    parts = [run(part) for part in (images[:1], *torch.split(images[1:], _CHECK_BATCH)) if len(part)]
    differences = [
        float((torch.cat([part[place] for part in parts]) - expected[place]).abs().max()) for place in (0, 1)
    ]
    # A float has seven digits, whatever its size: logits of 100 agree to 1e-5 of that, no better.
    largest = max(1.0, float(expected[0].abs().max()))
    if not all(difference <= TOLERANCE * largest for difference in differences):
        raise ParityError(
            f"the exported {name} model must give what the model gives, to {TOLERANCE:g} of its largest logit, "
            f"{largest:.3g}; on {len(images)} images its logits differ by {differences[0]:.2g} and its scores by "
            f"{differences[1]:.2g}"
        )
    logits, scores = differences
    return Parity(images=len(images), real=real, logits=logits, scores=scores, largest_logit=largest)
