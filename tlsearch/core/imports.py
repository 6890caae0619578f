"""Where this package is imported from, and imports while the garbage collector rests."""

from __future__ import annotations

import ast
import gc
import os
import site
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any


def lazy_names(package: str, file: str) -> Callable[[str], Any]:
    """The ``__getattr__`` (PEP 562) of a package that loads its names on first use.

    They are those that the package imports under ``if TYPE_CHECKING``. By name, not by import statements: so no import
    of one part of the package waits for the others.

    Args:
        package: Its ``__name__``.
        file: Its ``__file__``.
    """
    checked = [one for one in ast.parse(Path(file).read_text(encoding="utf-8")).body if isinstance(one, ast.If)]
    imports = [line for one in checked for line in one.body if isinstance(line, ast.ImportFrom)]
    modules = {alias.name: str(line.module) for line in imports for alias in line.names}

    def load(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(modules[name]), name)

    return load


def quick_import(name: str) -> None:
    """Imports a module unless it is imported; its objects are not searched for garbage later, either.

    The collector would search all that torch, torchvision and Ray Tune bring, time and again: a quarter of the time
    in which they are imported.
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


@contextmanager
def without_compiler() -> Iterator[None]:
    """Keeps torchvision, imported in the body, from importing PyTorch's compiler: 0.9 of its 1.0 s of CPU.

    One of its operations (roi_align) takes a single function of ``torch._dynamo``, when it is imported. It gets one
    that asks the compiler at its first call.
    """
    if "torchvision" in sys.modules or "torch._dynamo" in sys.modules:
        yield
        return
    compiler, utils = ModuleType("torch._dynamo"), ModuleType("torch._dynamo.utils")
    utils.is_compile_supported = _is_compile_supported  # type: ignore[attr-defined]
    sys.modules |= {one.__name__: one for one in (compiler, utils)}
    try:
        yield
    finally:
        for one in (compiler, utils):
            sys.modules.pop(one.__name__, None)


def _is_compile_supported(device_type: object) -> Any:
    return import_module("torch._dynamo.utils").is_compile_supported(device_type)


def package_folder() -> str | None:
    """The folder that another interpreter must be given to import this package; None where it finds it by itself.

    It finds what is installed, in place or not, and what PYTHONPATH names: not what was imported from the current
    folder.
    """
    folder = Path(__file__).resolve().parents[2]
    sites = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    places = [*filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), *sites]
    for one in sites:
        for file in Path(one).glob("*.pth"):
            places += [os.path.join(one, line.strip()) for line in file.read_text(encoding="utf-8").splitlines()]
    return None if any(os.path.realpath(place) == str(folder) for place in places) else str(folder)


def leave_current_folder() -> None:
    """Takes the current folder out of PYTHONPATH, for this process and those that it starts.

    Nobody means it who writes ``PYTHONPATH=$PYTHONPATH:/my/code`` where there was none: Python reads the empty entry as
    the current folder, before its own library. Sources of this package that were found there are looked in last.

    Raises:
        FileNotFoundError: The current folder was deleted.
    """
    here = os.getcwd()
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    kept = [entry for entry in named if entry not in ("", os.curdir)]
    if named in ([""], kept):
        return
    os.environ["PYTHONPATH"] = os.pathsep.join(kept)
    if here in sys.path and here not in map(os.path.abspath, kept):
        sys.path.remove(here)
        if package_folder() == os.path.realpath(here) and here not in sys.path:
            sys.path.append(here)


def own_python(module: str, *arguments: str) -> list[str]:
    """The command of another interpreter that runs a module, importing nothing from the folder that it starts in.

    Args:
        module: By its name, as ``python -m`` takes it.
    """
    safe = [] if module.startswith("tlsearch") and package_folder() else ["-P"]
    return [sys.executable, *safe, "-m", module, *arguments]
