"""The folders of this user: tlsearch's own, and those in which other libraries keep what they fetch or make.

Nothing here needs a home folder where the environment names the folders: containers often run with the number of a
user who has none, or whose home cannot be written.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tlsearch.core.errors import StorageError

CACHE_VARIABLE, STATE_VARIABLE = "TLSEARCH_CACHE_DIR", "TLSEARCH_STATE_DIR"

# A library's variable, the base folder's variable, and where its folder is by default: below that base, or in ~.
_LIBRARIES = (
    ("TORCH_HOME", "XDG_CACHE_HOME", ".cache", "torch"),
    ("HF_HOME", "XDG_CACHE_HOME", ".cache", "huggingface"),
    ("MPLCONFIGDIR", "XDG_CONFIG_HOME", ".config", "matplotlib"),
)


def own_folder(what: str, variable: str, default: Callable[[], Path], *, chosen: str = "", write: bool = True) -> Path:
    """One of tlsearch's folders, absolute.

    Args:
        what: ``cache`` or ``state``, for messages.
        variable: Of the environment; names the folder.
        default: Where it is otherwise.
        chosen: Comes before the variable.
        write: Made with mode 0700 where it is missing; else it may be missing, or read-only, but not unreadable.

    Raises:
        StorageError: It cannot be made, read or written, or this user has no home folder to make it in.
    """
    named = chosen or os.environ.get(variable) or ""
    try:
        folder = Path(named).expanduser().absolute() if named else default()
    except RuntimeError as error:  # of pathlib, for a user without a home folder
        raise StorageError(
            f"the {what} folder {named or 'of this user'} cannot be created: {error} {variable} names another"
        ) from error
    if not write:
        try:
            os.scandir(folder).close()
        except (FileNotFoundError, NotADirectoryError):
            pass  # nothing was kept yet
        except OSError as error:
            raise StorageError(
                f"the {what} folder {folder} cannot be read: {error.strerror}; {variable} names another"
            ) from error
        return folder
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        held = next(one for one in (folder, *folder.parents) if os.path.lexists(one))
        reason = (error.strerror or str(error)) if held.is_dir() else f"{held} is a file"
        raise StorageError(
            f"the {what} folder {folder} cannot be created: {reason}; {variable} names another"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError(f"the {what} folder {folder} cannot be written by this user; {variable} names another")
    return folder


def state_directory(*, write: bool = False) -> Path:
    """The folder of the catalogue, which may be missing; ``write`` makes it.

    Raises:
        StorageError: It cannot be made or written, or this user has no home folder to make it in.
    """
    return own_folder("state", STATE_VARIABLE, lambda: user_state() / "tlsearch", write=write)


def user_cache() -> Path:
    """Where programs keep caches; RuntimeError for a user without a home folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def user_state() -> Path:
    """Where programs keep what they must remember; RuntimeError for a user without a home folder."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")


def home() -> Path | None:
    """This user's home folder; None where there is none."""
    try:
        folder = Path.home()
    except RuntimeError:
        return None
    return folder if folder.is_dir() else None


def lend_home() -> None:
    """Gives libraries a place in tlsearch's cache folder, where TLSEARCH_CACHE_DIR names it and home cannot serve.

    MLflow and Ray fail when they are imported by a user without a home; those that keep files there fail later. It
    is lent by the environment, so that processes that are started later have it too. A home that is there stays:
    it holds credentials and settings.
    """
    cache = os.environ.get(CACHE_VARIABLE)
    if not cache:
        return
    lent = Path(os.path.abspath(cache))
    if home() is None:
        os.environ["HOME"] = str(lent / "home")
        return
    for variable, base_variable, base, name in _LIBRARIES:
        usual = Path(os.environ.get(base_variable) or Path.home() / base) / name
        if variable not in os.environ and not usual.exists() and not _can_be_made(usual):
            os.environ[variable] = str(lent / name)


def _can_be_made(folder: Path) -> bool:
    held = next(one for one in folder.absolute().parents if one.exists())
    return held.is_dir() and os.access(held, os.W_OK | os.X_OK)


HELD = "held"  # a file that marks a folder as a tlsearch process's, which has a lock on it while it runs


@contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """A folder in TMPDIR that ends with the body; where the process is killed, with the next one's call.

    Args:
        purpose: A word for its name.
    """
    drop_ended(Path(tempfile.gettempdir()), "tlsearch-*", keep=0)
    root = Path(tempfile.mkdtemp(prefix=f"tlsearch-{purpose}-"))
    try:
        with held(root):
            (root / "files").mkdir()
            yield root / "files"
    finally:
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Marks a folder as this process's while the body runs; after that, or its death, ``drop_ended`` may remove it."""
    marking = folder / f".{HELD}"
    handle = os.open(marking, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        os.replace(marking, folder / HELD)  # only now: a mark without its lock would be one of the dead
        yield
    finally:
        os.close(handle)


def drop_ended(folder: Path, pattern: str, *, keep: int) -> None:
    """Removes folders that ended processes of this user have held, but for the ``keep`` whose names come last."""
    marks = (mark for mark in folder.glob(f"{pattern}/{HELD}") if not mark.parent.is_symlink())
    ended = sorted(mark.parent for mark in marks if _is_free(mark))
    for one in ended[: max(0, len(ended) - keep)]:
        shutil.rmtree(one, ignore_errors=True)


def _is_free(mark: Path) -> bool:
    with suppress(OSError):
        handle = os.open(mark, os.O_RDWR | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.fstat(handle).st_uid == os.geteuid()
        finally:
            os.close(handle)
    return False
