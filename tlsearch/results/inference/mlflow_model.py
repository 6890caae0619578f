"""The served model: a models-from-code script that MLflow runs where the model is loaded.

It takes base64 images and answers one {label, score, top} for each, of a multi-label model with its labels. It imports
neither ray nor optuna; torch and the model's rooms are imported when the model is loaded.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

if TYPE_CHECKING:
    from tlsearch.results.inference.predictor import Classifier

ARTIFACT = "checkpoint"  # the artifact that holds the checkpoint folder
_SHOWN = 40


class ServedClassifier(PythonModel):
    """Classifies images that come as base64 strings; a string is never taken for a path."""

    _classifier: Classifier

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the checkpoint that was logged with the model."""
        from tlsearch.data.images.pixel_budget import BUDGET
        from tlsearch.results.inference.predictor import load_model
        from tlsearch.results.inference.served_requests import MAX_IMAGE_PIXELS, guard_server

        BUDGET.limit(MAX_IMAGE_PIXELS)
        found = load_model(context.artifacts[ARTIFACT])
        self._classifier = replace(found, max_pixels=min(found.max_pixels, MAX_IMAGE_PIXELS))
        guard_server(type(self).__name__)

    # A DataFrame is what MLflow makes of every input by the signature; its hint keeps MLflow from guessing another.
    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """One {label, score, top} for each image.

        Args:
            model_input: Base64 strings: a list, a one-column DataFrame, or an array of shape (N,) or (N, 1).

        Raises:
            MlflowException: An input is not base64 of an image, or the request breaks a limit: the server answers 400.
                The model gives no finite scores: it answers 500.
        """
        from tlsearch.core.errors import DataError, StorageError
        from tlsearch.results.inference.predictor import predict

        texts = as_strings(model_input)
        _check_limits(texts)
        images = [decode(text, position) for position, text in enumerate(texts)]
        try:
            _check_pixels(images)
            answers = predict(self._classifier, images)
        except DataError as error:
            raise MlflowException.invalid_parameter_value(
                f"an input is the base64 of an encoded image (PNG, JPEG ...): {error}"
            ) from error
        except MemoryError:
            raise MlflowException.invalid_parameter_value(
                "the images take more memory than this server has: send smaller ones, or fewer at a time"
            ) from None
        except StorageError as error:
            raise MlflowException(str(error)) from error
        return [{key: value for key, value in asdict(answer).items() if key != "path"} for answer in answers]


def _check_limits(texts: Sequence[Any]) -> None:
    from tlsearch.results.inference.served_requests import MAX_BYTES, MAX_IMAGES

    if len(texts) > MAX_IMAGES:
        raise MlflowException.invalid_parameter_value(
            f"a request holds at most {MAX_IMAGES} images, not {len(texts)}: send fewer at a time"
        )
    if (length := sum(len(text) for text in texts if isinstance(text, str))) > MAX_BYTES:
        raise MlflowException.invalid_parameter_value(
            f"a request has at most {MAX_BYTES:,} bytes, not {length:,}: send fewer images at a time"
        )


def _check_pixels(images: Sequence[bytes]) -> None:
    """By the heads of the images: what is decoded one at a time takes little memory, but its time."""
    from tlsearch.data.images.own_channels import num_pixels
    from tlsearch.results.inference.served_requests import MAX_PIXELS

    pixels = sum(num_pixels(image, f"image {position}") for position, image in enumerate(images))
    if pixels > MAX_PIXELS:
        raise MlflowException.invalid_parameter_value(
            f"the images of a request have at most {MAX_PIXELS:,} pixels together, not {pixels:,}: send fewer at a time"
        )


def as_strings(model_input: Any) -> list[Any]:
    """The inputs as a flat list, whatever container MLflow or the caller chose.

    Raises:
        MlflowException: A table of several columns, or something that holds no list of strings.
    """
    if isinstance(model_input, str):
        return [model_input]
    if isinstance(model_input, (pd.DataFrame, pd.Series)):
        model_input = model_input.to_numpy()
    if isinstance(model_input, np.ndarray):
        if model_input.ndim == 2 and model_input.shape[1] == 1:
            model_input = model_input[:, 0]
        if model_input.ndim != 1:
            raise MlflowException.invalid_parameter_value(
                f"inputs are one base64 string for each image; this has the shape {model_input.shape}"
            )
        return list(model_input.tolist())
    if isinstance(model_input, (list, tuple)):
        return [item[0] if isinstance(item, (list, tuple)) and len(item) == 1 else item for item in model_input]
    raise MlflowException.invalid_parameter_value(
        f"inputs are a list of base64 strings, not {type(model_input).__name__}"
    )


def decode(text: Any, position: int) -> bytes:
    """The bytes of one base64 string.

    Raises:
        MlflowException: It is not a string, or not base64 (a path, for instance).
    """
    if not isinstance(text, str):
        raise MlflowException.invalid_parameter_value(
            f"image {position}: an input is a base64 string, not {type(text).__name__}; paths, bytes and arrays "
            "are for tlsearch.predict"
        )
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        start = text[:_SHOWN] + ("..." if len(text) > _SHOWN else "")
        raise MlflowException.invalid_parameter_value(
            f"image {position}: an input is the base64 of an encoded image, never a path or a URL, not {start!r}"
        ) from None


set_model(ServedClassifier())
