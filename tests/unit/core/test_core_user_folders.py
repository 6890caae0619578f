"""The folders of a user who has no home, or one that cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tlsearch.app.catalog import catalog
from tlsearch.app.checks.outputs import require_folders
from tlsearch.app.searches.prepare import gone_unless_whole
from tlsearch.cli.root import app
from tlsearch.core import user_folders
from tlsearch.core.errors import StorageError
from tlsearch.core.types import CacheSpec
from tlsearch.core.user_folders import lend_home
from tlsearch.node_cache.locked_files import cache_directory


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a user's number that has no entry anywhere."""

    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    for name in ("HOME", "TLSEARCH_CACHE_DIR", "TLSEARCH_STATE_DIR", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_home_the_message_names_the_variable(homeless: None) -> None:
    with pytest.raises(StorageError, match="the cache folder of this user cannot be created.*TLSEARCH_CACHE_DIR names"):
        cache_directory(CacheSpec())
    for write in (True, False):
        with pytest.raises(StorageError, match="the state folder of this user.*TLSEARCH_STATE_DIR names another"):
            user_folders.state_directory(write=write)


def test_with_both_folders_named_no_home_is_needed(
    homeless: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TLSEARCH_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TLSEARCH_STATE_DIR", str(tmp_path / "state"))
    require_folders()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "state"]
    lend_home()
    assert os.environ["HOME"] == str(tmp_path / "cache" / "home")  # MLflow and Ray ask for one when imported


@pytest.mark.parametrize("variable", ["TLSEARCH_CACHE_DIR", "TLSEARCH_STATE_DIR"])
@pytest.mark.parametrize("named", ["file", "file/below", "/proc/nowhere/below", "locked/below", "locked"])
def test_a_folder_that_cannot_be_used_is_named_with_its_variable(
    variable: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "locked").mkdir(mode=0o500)
    if named.startswith("locked") and os.access(tmp_path / "locked", os.W_OK):
        pytest.skip("this user may write everywhere")
    monkeypatch.setenv(variable, str(tmp_path / named))
    with pytest.raises(StorageError, match=rf"{variable} names another$") as caught:
        require_folders()
    assert str(tmp_path / named) in str(caught.value)
    if named.startswith("file"):
        assert f"{tmp_path}/file is a file" in str(caught.value)


def test_a_relative_folder_is_of_the_current_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TLSEARCH_STATE_DIR", "mine")
    assert user_folders.state_directory(write=True) == tmp_path / "mine"


def test_reading_the_catalogue_makes_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLSEARCH_STATE_DIR", str(tmp_path / "none" / "yet"))
    with pytest.raises(StorageError, match="no search .* in the catalogue"):
        catalog.find()
    assert list(tmp_path.iterdir()) == []


def test_a_catalogue_that_cannot_be_read_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLSEARCH_STATE_DIR", "/" + "x" * 300)  # too long a name, for root too
    with pytest.raises(StorageError, match="the state folder /x+ cannot be read.*TLSEARCH_STATE_DIR names another"):
        catalog.find()


@pytest.mark.parametrize("existing", ["cache", "none"])
def test_libraries_are_lent_a_place_where_theirs_cannot_be_made(
    existing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "xdg"
    base.write_text("")  # nothing can be made below a file, whoever the user is
    monkeypatch.setenv("XDG_CONFIG_HOME", str(base))
    monkeypatch.setenv("XDG_CACHE_HOME", str(base if existing == "none" else tmp_path))
    monkeypatch.setenv("TLSEARCH_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", "/mine")
    for name in ("TORCH_HOME", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    lend_home()
    assert os.environ["MPLCONFIGDIR"] == str(tmp_path / "cache" / "matplotlib")
    assert os.environ["HF_HOME"] == "/mine"  # the user's own word
    assert os.environ.get("TORCH_HOME") == (str(tmp_path / "cache" / "torch") if existing == "none" else None)


def test_a_failed_start_leaves_no_folder_that_keeps_the_name(tmp_path: Path) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "half").write_text("")
    with pytest.raises(KeyboardInterrupt), gone_unless_whole(tmp_path / "search"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_library_that_asks_for_a_home_is_answered_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    import tlsearch.cli.commands  # noqa: F401  # its modules add their commands

    def asks(*arguments: object) -> None:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("tlsearch.app.cluster.relay.locate", asks)
    done = CliRunner().invoke(app, ["status"])
    assert done.exit_code == 1
    assert "this user has no home folder: set HOME, or TLSEARCH_CACHE_DIR and TLSEARCH_STATE_DIR" in done.stderr


def test_no_place_for_temporary_files_is_answered_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    import tlsearch.cli.commands  # noqa: F401  # its modules add their commands

    def makes_one(*arguments: object) -> None:
        tempfile.mkdtemp()

    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc/nowhere"])
    monkeypatch.setattr("tlsearch.app.cluster.relay.locate", makes_one)
    done = CliRunner().invoke(app, ["status"])
    assert done.exit_code == 1
    assert "No usable temporary directory found in ['/proc/nowhere']: set TMPDIR to a folder" in done.stderr


@pytest.mark.parametrize("named", ["", f"{os.pathsep}/elsewhere", f"/elsewhere{os.pathsep}."])
def test_nothing_is_imported_from_the_current_folder(named: str, tmp_path: Path) -> None:
    for module in ("statistics", "random", "typer", "numpy"):
        (tmp_path / f"{module}.py").write_text("raise RuntimeError('imported from the current folder')")
    environment = os.environ | {"HOME": str(tmp_path), "PYTHONPATH": named}
    script = ["-P", "-c", "from tlsearch.cli import main; main()"]  # as the installed command
    command = [sys.executable, *(script if named else ["-m", "tlsearch"]), "results"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "no search" in done.stderr, done.stderr


def test_a_current_folder_that_was_deleted_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    script = "import os, sys; os.rmdir(os.getcwd()); from tlsearch.cli import main; main()"
    command = [sys.executable, "-P", "-c", script, "results"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "the current folder does not exist any more: change to another one and try again\n"
