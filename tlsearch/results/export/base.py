"""What all exported formats share: the module that is exported, what describes it, the images it is checked on.

N images, C classes, S side of the crop. All take normalised float32 pixels (N, K, S, S), of K channels, and
give logits and scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tlsearch.core.errors import TlsearchError, UserError
from tlsearch.core.types import TransformSpec
from tlsearch.data import Picture, as_tensor, eval_image, normalise
from tlsearch.data.images.own_channels import in_format
from tlsearch.results.export.export_formats import formats_of_any_model
from tlsearch.results.inference.networks import AveragedNetworks, transforms_of
from tlsearch.results.inference.predictor import Classifier
from tlsearch.train import LOSSES

TOLERANCE = 1e-4
_SYNTHETIC = 16
_CHECK_BATCH = 25

Run = Callable[..., tuple[Tensor, Tensor]]  # an exported model: its inputs, in order, to logits and scores


class ParityError(TlsearchError, RuntimeError):
    """An exported model does not give what the model gives: nothing is handed out."""


class Exported(nn.Module):
    """A classifier with its softmax, or sigmoid: normalised pixels (N, K, S, S) to logits (N, C) and scores (N, C).

    An ensemble takes one input for each distinct preprocessing of its members; its logits are the logarithms of their
    averaged probabilities.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.model = AveragedNetworks(classifier.networks)
        self.temperature = classifier.temperature
        self._probabilities = LOSSES[classifier.task.name].probabilities

    def forward(self, *images: Tensor) -> tuple[Tensor, Tensor]:
        """Scores are softmax(logits / temperature), or sigmoid(logits / temperature)."""
        logits = self.model(*images)
        return logits, self._probabilities(logits / self.temperature)


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


def input_names(classifier: Classifier) -> tuple[str, ...]:
    """``images``; of several preprocessings ``images_1``, ``images_2`` ..."""
    num = len(transforms_of(classifier.networks))
    return ("images",) if num == 1 else tuple(f"images_{place}" for place in range(1, num + 1))


def example_inputs(classifier: Classifier) -> tuple[Tensor, ...]:
    """Two black images for each input, to trace the model with."""
    transforms = transforms_of(classifier.networks)
    return tuple(torch.zeros(2, one.channels, one.crop_size, one.crop_size) for one in transforms)


def dynamic_batch(classifier: Classifier) -> tuple[tuple[dict[int, Any], ...]]:
    """That all inputs have one batch of any size, as ``torch.export`` takes it for ``Exported``."""
    batch = torch.export.Dim("batch")
    return (tuple({0: batch} for _ in input_names(classifier)),)


def description(classifier: Classifier) -> dict[str, Any]:
    """What a program must know to use an exported model."""
    meta, ensemble = classifier.meta, classifier.ensemble
    general = {
        "labels": list(meta.classes),
        "temperature": classifier.temperature,
        "outputs": f"logits; scores = {classifier.task.activation}(logits / temperature)",
        "tlsearch_version": meta.tlsearch_version,
    }
    if classifier.thresholds:
        general |= {
            "task": classifier.task.name,
            "thresholds": list(classifier.thresholds),
            "outputs": f"{general['outputs']}; an image has the classes whose score is above their threshold",
        }
    names = dict(zip(transforms_of(classifier.networks), input_names(classifier), strict=True))
    if len(names) == 1:
        general |= {"image_size": meta.image_size, "preprocessing": _preprocessing(meta.transform)}
    else:
        general["inputs"] = {name: _preprocessing(transform) for transform, name in names.items()}
    if ensemble is None:
        return {"backbone": meta.backbone, **general, "metric": {meta.metric: meta.value}}
    members = [
        {
            "trial": member.trial,
            "backbone": network.meta.backbone,
            "weight": network.weight,
            "temperature": network.temperature,
            "input": names[network.meta.transform],
        }
        for member, network in zip(ensemble.members, classifier.networks, strict=True)
    ]
    return {**general, "members": members, "metric": {ensemble.metric: ensemble.value}}


def _preprocessing(transform: TransformSpec) -> dict[str, Any]:
    pixels = transform.pixel_format
    if pixels.is_rgb:
        colour, first = "RGB", "turn upright (EXIF), lay transparency on white"
    else:
        colour, first = str(pixels), "turn upright (EXIF)"
    steps = f"{first}, resize, centre crop, divide by {pixels.top}, subtract mean, divide by std; layout NCHW"
    return {"colour": colour, "steps": steps, **transform.as_json()}


def check_own_head(classifier: Classifier) -> None:
    """For formats that build the library's own model: its head must read what the library's reads.

    Raises:
        UserError: It reads other tokens.
    """
    if (features := classifier.meta.config.features) is not None:
        raise UserError(
            "this format builds the library's own model, and the head of this one reads other tokens (features "
            f"{features}): use --format {formats_of_any_model()}"
        )


def check_rgb(classifier: Classifier) -> None:
    """For formats whose own preprocessing reads RGB images of 8 bits.

    Raises:
        UserError: The model takes others.
    """
    if not classifier.pixels.is_rgb:
        raise UserError(
            f"this format reads RGB images of 8 bits, and this model takes {classifier.pixels}: use --format "
            f"{formats_of_any_model()}"
        )


def prepared_images(classifier: Classifier, images: Sequence[Picture]) -> tuple[Tensor, ...]:
    """Normalised pixels (N, K, S, S) of images, for each input; of made-up ones where there are none."""
    if not images:
        rng, pixels = np.random.default_rng(0), classifier.pixels
        shape = (classifier.meta.image_size, classifier.meta.image_size, pixels.channels)
        dtype = np.uint8 if pixels.bits == 8 else np.uint16
        made = [rng.integers(0, pixels.top + 1, shape, dtype=dtype) for _ in range(_SYNTHETIC)]
        images = [in_format(one, pixels, "a made-up image") for one in made]
    return tuple(_prepared(images, transform) for transform in transforms_of(classifier.networks))


def _prepared(images: Sequence[Picture], transform: TransformSpec) -> Tensor:
    pixels = np.stack([eval_image(image, transform) for image in images])
    return normalise(as_tensor(pixels).permute(0, 3, 1, 2).contiguous(), transform)


def expected_outputs(classifier: Classifier, images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The model's own logits and scores."""
    wrapped = Exported(classifier).eval()
    with torch.inference_mode():
        parts = [wrapped(*batch) for batch in _batches(images)]
    return torch.cat([logits for logits, _ in parts]), torch.cat([scores for _, scores in parts])


def spread(keys: Sequence[str], most: int) -> Sequence[str]:
    """At most this number of a split's images, evenly over its classes: keys are sorted by label."""
    count = min(most, len(keys))
    return [keys[place * len(keys) // count] for place in range(count)]


def batches_of(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    """The keys of one batch of images after the other."""
    return (keys[start : start + _CHECK_BATCH] for start in range(0, len(keys), _CHECK_BATCH))


def _batches(images: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(torch.split(one, _CHECK_BATCH) for one in images), strict=True)


def check_parity(
    name: str,
    run: Run,
    images: Sequence[Tensor],
    expected: tuple[Tensor, Tensor],
    *,
    real: bool,
) -> Parity:
    """Runs an exported model on the images, in batches of two sizes, and compares.

    Raises:
        ParityError: A logit differs by more than TOLERANCE of the largest one (where that is above 1), a score by more
            than what follows from it, or one is not finite.
    """
    batches = ([one[:1] for one in images], *_batches([one[1:] for one in images]))
    parts = [run(*batch) for batch in batches if len(batch[0])]
    differences = [
        float((torch.cat([part[place] for part in parts]) - expected[place]).abs().max()) for place in (0, 1)
    ]
    # A float has seven digits, whatever its size: logits of 100 agree to 1e-5 of that, no better.
    largest = max(1.0, float(expected[0].abs().max()))
    if not all(difference <= TOLERANCE * largest for difference in differences):
        raise ParityError(
            f"the exported {name} model must give what the model gives, to {TOLERANCE:g} of its largest logit, "
            f"{largest:.3g}; on {len(images[0])} images its logits differ by {differences[0]:.2g} and its scores by "
            f"{differences[1]:.2g}"
        )
    logits, scores = differences
    return Parity(images=len(images[0]), real=real, logits=logits, scores=scores, largest_logit=largest)
