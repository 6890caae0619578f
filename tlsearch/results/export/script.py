"""A plain PyTorch script beside its weights: a folder that predicts without tlsearch.

predict.py builds the library's own model, puts the new classifier into its place and loads the tensors under the
library's own names.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from tlsearch.core.errors import UserError
from tlsearch.model import StagedModel
from tlsearch.model.libraries.fast_init import meta_original
from tlsearch.model.libraries.libraries import is_timm, timm_name, timm_options, torchvision_options
from tlsearch.node_cache.locked_files import give_usual_mode
from tlsearch.results.export.base import Run, check_own_head, check_rgb, description
from tlsearch.results.export.export_formats import formats_of_any_model
from tlsearch.results.inference.predictor import Classifier
from tlsearch.space.libraries.backbones import split_version

SCRIPT, WEIGHTS, CONFIG = "predict.py", "model.safetensors", "model.json"
_TEMPLATE = Path(__file__).parent / "predict_script.txt"
_HEAD = "head.classifier"


def write(classifier: Classifier, folder: Path) -> None:
    """Writes predict.py, model.safetensors and model.json into a new folder.

    Raises:
        UserError: The head reads other tokens than the library's model, images are not RGB of 8 bits, or the model has
            no single classifier layer that the new one could take the place of.
    """
    check_own_head(classifier)
    check_rgb(classifier)
    folder.mkdir()
    meta = classifier.meta
    base, version = split_version(meta.backbone)
    if is_timm(base):
        call = {
            "library": "timm",
            "name": timm_name(base, version),
            "options": timm_options(base, version, meta.image_size),
        }
    else:
        call = {"library": "torchvision", "name": base, "options": torchvision_options(base, meta.image_size)}
    original = meta_original(base, version, meta.image_size)
    place = _classifier_place(original, classifier.model, meta.backbone)
    state = classifier.model.state_dict()
    tensors = {name: state[ours] for name, ours in classifier.model.origin.items()}
    weight = state[f"{_HEAD}.weight"]
    convolution = isinstance(original.get_submodule(place), nn.Conv2d)
    if convolution:  # pool, flatten and a linear layer stand for the whole sequence that the convolution was in
        place = place.rpartition(".")[0]
    inner = f"{place}.2" if convolution else place
    tensors |= {f"{inner}.{key}": state[f"{_HEAD}.{key}"] for key in ("weight", "bias") if f"{_HEAD}.{key}" in state}
    call["classifier"] = {
        "place": place,
        "pooled": convolution,
        "features": weight.shape[1],
        "bias": f"{_HEAD}.bias" in state,
    }
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(copies, str(folder / WEIGHTS))
    give_usual_mode(folder / WEIGHTS)
    config = {**description(classifier), "model": call}
    (folder / CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")
    (folder / SCRIPT).write_text(_TEMPLATE.read_text(encoding="utf-8"), encoding="utf-8")


def open_model(folder: Path) -> Run:
    """Runs the script's own model; the script is one that this process has just written."""
    spec = importlib.util.spec_from_file_location("exported_predict", folder / SCRIPT)
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.read_config()
    model = module.load_model(config)

    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        outputs: tuple[Tensor, Tensor] = module.run(model, images, config)
        return outputs

    return run


def _classifier_place(original: nn.Module, model: StagedModel, backbone: str) -> str:
    """Where the library's model has its last classifier layer: the only tensors that the backbone has not."""
    places = {name.rpartition(".")[0] for name in original.state_dict() if name not in model.origin}
    if len(places) != 1:
        raise UserError(f"{backbone} has no single classifier layer to replace: use --format {formats_of_any_model()}")
    return places.pop()
