"""Imports while the garbage collector rests."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from tlsearch.core.imports import lazy_names, quick_import


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that notes whether the collector was at work while it was imported."""
    (tmp_path / "brought_by_test.py").write_text("import gc\nenabled = gc.isenabled()\n")
    (tmp_path / "broken_by_test.py").write_text("raise ValueError('no')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "brought_by_test", raising=False)
    return "brought_by_test"


def test_what_is_imported_is_brought_unsearched_and_once(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen: list[int] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(1))
    quick_import(module)
    assert not sys.modules[module].enabled and gc.isenabled()
    quick_import(module)
    assert frozen == [1], "a trial's own objects must not be frozen when the next trial asks for the same module"


def test_the_collector_works_on_after_a_fault_and_stays_off_where_it_was(module: str) -> None:
    with pytest.raises(ValueError, match="no"):
        quick_import("broken_by_test")
    assert gc.isenabled()
    gc.disable()
    try:
        quick_import(module)
        assert module in sys.modules and not gc.isenabled()
    finally:
        gc.enable()


def test_a_command_ends_without_a_last_search_for_garbage() -> None:
    code = (
        "import atexit, gc\n"
        "atexit.register(lambda: print('frozen', gc.get_freeze_count() > 0))\n"  # runs last: it came first
        "from tlsearch.cli import main\n"
        "import sys; sys.argv = ['tlsearch', '--version']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "frozen True"


def test_torchvision_is_imported_without_the_compiler_and_asks_it_later() -> None:
    code = """
import sys
from tlsearch.core.imports import without_compiler
with without_compiler():
    import torchvision
assert not [name for name in sys.modules if name.startswith("torch._dynamo")]
from torchvision.ops import roi_align
asked = sys.modules["torchvision.ops.roi_align"].is_compile_supported("cpu")
from torch._dynamo.utils import is_compile_supported
assert asked == is_compile_supported("cpu")
import torch
assert torch.compile(lambda number: number + 1, backend="eager")(torch.ones(1)).item() == 2
with without_compiler():
    import torch._dynamo
assert torch._dynamo is sys.modules["torch._dynamo"] and torch._dynamo.__file__
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_import_that_fails_leaves_the_compiler_to_be_imported() -> None:
    code = """
import sys
from tlsearch.core.imports import without_compiler
try:
    with without_compiler():
        raise ImportError
except ImportError:
    assert not [name for name in sys.modules if name.startswith("torch._dynamo")]
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_package_loads_the_names_that_it_imports_for_type_checkers(module: str, tmp_path: Path) -> None:
    file = tmp_path / "package.py"
    file.write_text(f"if TYPE_CHECKING:\n    from {module} import enabled\nif other:\n    pass\n")
    load = lazy_names("package", str(file))
    assert module not in sys.modules, "nothing is imported before its first use"
    assert load("enabled") is True
    with pytest.raises(AttributeError, match="'package' has no attribute 'gone'"):
        load("gone")
