"""Why a pickle of torch is refused: the objects in it that only code could rebuild, and what to do."""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path

from torch.serialization import get_unsafe_globals_in_checkpoint

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
