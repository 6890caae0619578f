"""tlsearch: search for the best way to fine-tune a pretrained image classifier."""

from __future__ import annotations

import sys

if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
    # `python -m tlsearch` would import everything from the current folder first, a `statistics.py` there too. Where
    # the package itself is in that folder, and nowhere else, it is looked in last.
    _module = sys.orig_argv[len(sys.orig_argv) - len(sys.argv)].removeprefix("-m")
    if _module.partition(".")[0] == __name__:
        _folder = sys.path.pop(0)
        if __file__.startswith(_folder) and _folder not in sys.path:
            sys.path.append(_folder)

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_LAZY = {"load_model": "tlsearch.results.inference.predictor", "predict": "tlsearch.results.inference.predictor"}

__all__ = ["__version__", "load_model", "predict"]


def __getattr__(name: str) -> Any:
    # By name, not by an import statement: every room imports this package, and these two bring torch.
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
