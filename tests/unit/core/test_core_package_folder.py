"""Which folder another interpreter must be given to import this package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tlsearch.core import imports

_ROOT = Path(imports.__file__).resolve().parents[2]


def test_an_installed_package_needs_none(tmp_path: Path) -> None:
    script = (
        "from tlsearch.core.imports import own_python, package_folder; print(package_folder(), own_python('tlsearch'))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"None ['{sys.executable}', '-P', '-m', 'tlsearch']\n"


def test_sources_in_the_current_folder_must_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports.site, "getsitepackages", list)
    monkeypatch.setattr(imports.site, "ENABLE_USER_SITE", False)
    monkeypatch.setenv("PYTHONPATH", f"{os.pathsep}/elsewhere")
    assert imports.package_folder() == str(_ROOT)
    assert imports.own_python("tlsearch") == [sys.executable, "-m", "tlsearch"]
    assert imports.own_python("mlflow", "ui") == [sys.executable, "-P", "-m", "mlflow", "ui"]
    monkeypatch.setenv("PYTHONPATH", f"/elsewhere{os.pathsep}{_ROOT}")
    assert imports.package_folder() is None
