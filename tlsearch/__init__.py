"""tlsearch: search for the best way to fine-tune a pretrained image classifier."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_LAZY = {"load_model": "tlsearch.results.predictor", "predict": "tlsearch.results.predictor"}

__all__ = ["__version__", "load_model", "predict"]


def __getattr__(name: str) -> Any:
    # By name, not by an import statement: every room imports this package, and these two bring torch.
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
