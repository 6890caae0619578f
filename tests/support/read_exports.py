"""Reads one exported model and says what it sees, in a process that knows nothing of tlsearch.

    python read_exports.py FORMAT PATH IMAGES ANSWERS

FORMAT is transformers, timm, onnx or openvino; IMAGES a folder of images in class folders. ANSWERS becomes JSON:
{labels: the names, paths: relative, logits: one list for each image}.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

_BATCH = 25
Answer = Callable[[list[Image.Image]], Any]


def to_rgb(image: Image.Image) -> Image.Image:
    """Upright, transparency on white, as the folder's README.md says."""
    image = ImageOps.exif_transpose(image).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def prepared(images: list[Image.Image], steps: dict[str, Any]) -> Any:
    """Normalised pixels (N, 3, S, S) as ``preprocessing`` says."""
    size = [steps["resize_size"]] * (2 if steps["crop_mode"] == "squash" else 1)
    found = []
    for image in images:
        image = F.resize(image, size, interpolation=InterpolationMode(steps["interpolation"]), antialias=True)
        pixels = F.pil_to_tensor(F.center_crop(image, [steps["crop_size"]] * 2)).float() / 255
        found.append(F.normalize(pixels, steps["mean"], steps["std"]))
    return torch.stack(found).numpy()


def of_transformers(path: str) -> tuple[list[str], Answer]:
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    processor = AutoImageProcessor.from_pretrained(path)
    model = AutoModelForImageClassification.from_pretrained(path).eval()
    return list(model.config.id2label.values()), lambda images: model(**processor(images)).logits.numpy()


def of_timm(path: str) -> tuple[list[str], Answer]:
    import timm

    model = timm.create_model(f"local-dir:{path}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    names = list(model.pretrained_cfg["label_names"])
    return names, lambda images: model(torch.stack([transform(one) for one in images])).numpy()


def of_onnx(path: str) -> tuple[list[str], Answer]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    steps = json.loads(metadata["preprocessing"])
    answer = lambda images: session.run(["logits"], {"images": prepared(images, steps)})[0]  # noqa: E731
    return json.loads(metadata["labels"]), answer


def of_openvino(path: str) -> tuple[list[str], Answer]:
    import openvino

    config = json.loads((Path(path) / "model.json").read_text(encoding="utf-8"))
    compiled = openvino.Core().compile_model(str(Path(path) / "model.xml"), "CPU", config["cpu_properties"])
    answer = lambda images: compiled([prepared(images, config["preprocessing"])])[compiled.output("logits")]  # noqa: E731
    return config["labels"], answer


READERS = {"transformers": of_transformers, "timm": of_timm, "onnx": of_onnx, "openvino": of_openvino}


def main(form: str, path: str, images: str, answers: str) -> None:
    files = sorted(Path(images).rglob("*.png"))
    labels, answer = READERS[form](path)
    logits = []
    with torch.inference_mode():
        for start in range(0, len(files), _BATCH):
            logits.append(answer([to_rgb(Image.open(one)) for one in files[start : start + _BATCH]]))
    assert "tlsearch" not in sys.modules
    paths = [str(one.relative_to(images)) for one in files]
    content = {"labels": labels, "paths": paths, "logits": np.concatenate(logits).tolist()}
    Path(answers).write_text(json.dumps(content), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
