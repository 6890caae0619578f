"""``tlsearch demo`` has its space file in a wheel and in a checkout, and a folder of its own."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from space_files import load_space_file
from typer.testing import CliRunner

import tlsearch.cli.commands  # noqa: F401  # its modules add their commands
from tlsearch.cli.commands import space_files
from tlsearch.cli.root import app

ROOT = Path(__file__).resolve().parents[2]


def test_the_demo_runs_in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Path] = []
    monkeypatch.setattr(space_files, "run", ran.append)
    folder = tmp_path / "new" / "demo"
    done = CliRunner().invoke(app, ["demo", "--folder", str(folder)])
    assert done.exit_code == 0 and ran == [folder / "space.yaml"]
    assert ran[0].read_text() == (ROOT / "search_spaces" / "quickstart.yaml").read_text()
    file = load_space_file(ran[0])
    assert Path(file.storage).parent == folder and str(folder) in file.tracking.uri, "all of it is beside the file"
    ran[0].write_text("name: mine\n")
    CliRunner().invoke(app, ["demo", "--folder", str(folder)])
    assert ran[0].read_text() == "name: mine\n", "a file that was changed stays"


def test_a_wheel_has_the_space_file_of_the_demo() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {"search_spaces/quickstart.yaml": "tlsearch/quickstart.yaml"}


def test_make_demo_writes_into_an_ignored_folder() -> None:
    assert "tlsearch demo --folder demo" in (ROOT / "Makefile").read_text()
    assert "/demo/" in (ROOT / ".gitignore").read_text().split()
