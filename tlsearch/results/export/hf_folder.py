"""A folder that transformers and timm load: weights under timm's names, config.json with labels and preprocessing.

And its way to the Hugging Face Hub, by huggingface_hub with its own login.

transformers (``AutoModelForImageClassification`` and ``AutoImageProcessor``, ``from_pretrained(folder)``) reads it as
a timm checkpoint (transformers' TimmWrapper), ``timm.create_model("local-dir:folder", pretrained=True)`` as its own.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tlsearch.core.errors import TlsearchError, UsageError, UserError
from tlsearch.core.label_tasks import DEFAULT_TASK
from tlsearch.core.printable import markdown_text
from tlsearch.core.types import TransformSpec
from tlsearch.model import TimmCounterpart, timm_counterpart
from tlsearch.node_cache.locked_files import give_usual_mode
from tlsearch.results.export.base import Run, check_own_head, description
from tlsearch.results.export.export_formats import formats_of_any_model
from tlsearch.results.inference.predictor import Classifier
from tlsearch.train import LOSSES

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"


def write(classifier: Classifier, folder: Path) -> None:
    """Writes model.safetensors, config.json and README.md into a new folder.

    The temperature is in the classifier's weights, since both libraries take the softmax, or sigmoid, of the logits as
    they are.

    Raises:
        UserError: timm is not installed, or has no model that gives the same logits; or the head reads other tokens.
    """
    _import_timm()
    check_own_head(classifier)
    try:
        found = timm_counterpart(classifier.model)
    except UserError as error:
        raise UserError(f"{error}: use --format {formats_of_any_model()}") from error
    _scale_logits(found.model, 1.0 / classifier.temperature)
    folder.mkdir()
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in found.model.state_dict().items()}
    save_file(tensors, str(folder / WEIGHTS), metadata={"format": "pt"})
    give_usual_mode(folder / WEIGHTS)
    config = json.dumps(_config(classifier, found), indent=2, ensure_ascii=True)
    (folder / CONFIG).write_text(config, encoding="utf-8")
    (folder / CARD).write_text(_card(classifier, found), encoding="utf-8")


def open_model(folder: Path) -> Run:
    """Runs the model as timm loads it from the folder; logits are times the temperature again."""
    model: nn.Module = _import_timm().create_model(f"local-dir:{folder}", pretrained=True).eval()
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    temperature: float = config["tlsearch"]["temperature"]
    probabilities = LOSSES[config["tlsearch"].get("task", DEFAULT_TASK)].probabilities

    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            scaled = model(images)
        return scaled * temperature, probabilities(scaled)

    return run


def _import_timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise UserError(
            "exporting for transformers and timm needs the package timm: pip install 'tlsearch[timm]'"
        ) from error
    return timm


@torch.no_grad()
def _scale_logits(model: Any, factor: float) -> None:
    for parameter in model.get_classifier().parameters():
        parameter.mul_(factor)


def _config(classifier: Classifier, found: TimmCounterpart) -> dict[str, Any]:
    """timm's config.json, which transformers reads too; the key ``tlsearch`` is for people and for the check."""
    meta, model = classifier.meta, found.model
    channels = meta.transform.channels
    size = [channels, meta.image_size, meta.image_size]
    transform = meta.transform
    pretrained = {
        "tag": found.tag,
        "custom_load": False,
        "input_size": size,
        "fixed_input_size": "img_size" in found.options,
        "interpolation": transform.interpolation,
        "crop_pct": crop_fraction(transform),
        "crop_mode": transform.crop_mode,
        "mean": list(transform.mean),
        "std": list(transform.std),
        "num_classes": len(meta.classes),
        # timm would adapt the weights once more to other channels than three
        "first_conv": _pretrained(model, "first_conv") if channels == 3 else None,
        "classifier": _pretrained(model, "classifier"),
    }
    config: dict[str, Any] = {
        "architecture": found.architecture,
        "num_classes": len(meta.classes),
        "num_features": int(getattr(model, "num_features", 0)),
        "label_names": list(meta.classes),
        "pretrained_cfg": pretrained,
        "tlsearch": description(classifier)
        | {"outputs": f"logits, divided by the temperature; scores = {classifier.task.activation}(logits)"},
    }
    if classifier.task.several:
        config["problem_type"] = "multi_label_classification"  # transformers' pipeline takes the sigmoid then
    return config | ({"model_args": dict(found.options)} if found.options else {})


def _pretrained(model: nn.Module, key: str) -> Any:
    config: Any = getattr(model, "pretrained_cfg", {})
    return config.get(key)


def crop_fraction(transform: TransformSpec) -> float:
    """timm's ``crop_pct``: it resizes to floor(crop / crop_pct), which must be the resize of the transform."""
    exact = transform.crop_size / transform.resize_size
    if math.floor(transform.crop_size / exact) == transform.resize_size:
        return exact
    return transform.crop_size / (transform.resize_size + 0.5)


def _card(classifier: Classifier, found: TimmCounterpart) -> str:
    """The page that the Hub shows; it states no licence, which is for the owner of the images and weights to give."""
    meta, code = classifier.meta, _CODE if classifier.pixels.is_rgb else _CODE_OF_CHANNELS
    labels = ", ".join(map(markdown_text, meta.classes))
    return f"""---
tags:
- image-classification
- timm
- transformers
pipeline_tag: image-classification
library_name: timm
---
# Image classifier: {markdown_text(found.architecture)}

Fine-tuned by tlsearch {markdown_text(meta.tlsearch_version)}; {markdown_text(meta.metric)} {meta.value:.4f}, by which
it was chosen. Input: {meta.image_size} x {meta.image_size} px. Classes: {labels}.

{code.format(pixels=classifier.pixels, size=meta.image_size, top=classifier.pixels.top, scores=_scores(classifier))}\
{_THRESHOLDS if classifier.task.several else ""}"""


def _scores(classifier: Classifier) -> str:
    return "softmax(dim=1)" if classifier.task.activation == "softmax" else "sigmoid()"


_CODE = """Turn images upright (EXIF) and lay transparent ones on white first; `config.json` holds the rest of the
preprocessing.

```python
from transformers import AutoImageProcessor, AutoModelForImageClassification

processor = AutoImageProcessor.from_pretrained(".")  # this folder
model = AutoModelForImageClassification.from_pretrained(".").eval()
scores = model(**processor(image)).logits.{scores}  # names: model.config.id2label
```

```python
import timm

model = timm.create_model("local-dir:.", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
scores = model(transform(image)[None]).{scores}  # names: model.pretrained_cfg["label_names"]
```
"""
_THRESHOLDS = """
An image has the classes whose score is above their number in `config.json`, `tlsearch.thresholds`.
"""
_CODE_OF_CHANNELS = """Images have {pixels}, and no image processor of transformers or timm reads them: resize and crop
them as `config.json` says, divide by {top}, subtract the mean and divide by the deviation of each channel.

```python
import timm

model = timm.create_model("local-dir:.", pretrained=True).eval()
scores = model(images).{scores}  # float32 (N, channels, {size}, {size})
```
"""


class HubError(TlsearchError, RuntimeError):
    """The Hub refuses, or cannot be reached."""


def _import_hub() -> Any:
    try:
        import huggingface_hub.utils
    except ImportError as error:
        raise UserError("--push needs the package huggingface_hub: pip install 'tlsearch[timm]' brings it") from error
    return huggingface_hub


def check_push(repo: str) -> None:
    """That there is a name to upload to and a login to do it with; sends nothing.

    Raises:
        UserError: Not a name of the Hub, no login, or huggingface_hub is not installed.
    """
    hub = _import_hub()
    try:
        hub.utils.validate_repo_id(repo)
    except hub.utils.HFValidationError as error:
        raise UsageError(f"--push takes a repository of the Hub, as name or owner/name, not {repo!r}") from error
    if hub.get_token() is None:
        raise UserError("--push needs a login to the Hugging Face Hub: `hf auth login`, or the variable HF_TOKEN")


def push(folder: Path, repo: str) -> str:
    """Uploads the files of a folder in one commit; a repository that does not exist is created as a private one.

    A README.md that the repository has already is left as it is.

    Returns:
        The address of the repository.

    Raises:
        HubError: The Hub refuses, or cannot be reached; the folder stays.
    """
    api = _import_hub().HfApi(library_name="tlsearch")
    try:
        created = api.create_repo(repo, private=True, exist_ok=True)
        kept = [CARD] if api.file_exists(created.repo_id, CARD) else None
        api.upload_folder(
            repo_id=created.repo_id,
            folder_path=str(folder),
            ignore_patterns=kept,
            commit_message="Upload a model exported by tlsearch",
        )
    except Exception as error:  # of whatever library it sends with
        raise HubError(f"{folder} is written, but it cannot be uploaded to {repo}: {error}") from error
    return str(created)
