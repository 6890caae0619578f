"""Imports while the garbage collector rests: it would search all that torch and MLflow bring, time and again."""

from __future__ import annotations

import gc
import sys
from importlib import import_module


def quick_import(name: str) -> None:
    """Imports a module that is not there yet; what it brings is not searched for garbage later, either.

    A quarter of the time in which torch, torchvision and Ray Tune are imported is otherwise the collector's.
    """
    if name in sys.modules:
        return
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        import_module(name)
        gc.freeze()
    finally:
        if was_enabled:
            gc.enable()
