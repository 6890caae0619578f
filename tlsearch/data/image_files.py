"""Many image files at once: their SHA-256, hashed once per process, and one error for all that are broken."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from tlsearch.core.errors import DamagedImages, DataError
from tlsearch.core.files import IMAGE_BYTES, open_regular
from tlsearch.core.printable import printable

# The last few lists of files hashed: digest of (path, size, times) of all -> digest of each file.
_KNOWN: OrderedDict[bytes, tuple[bytes, ...]] = OrderedDict()
_KNOWN_LOCK = Lock()
_MAX_KNOWN = 8
_CHUNK = 64


def file_digests(root: str, keys: Sequence[str]) -> tuple[bytes, ...]:
    """SHA-256 of the files ``root/key``, in the order of the keys.

    Files whose path, size and times are unchanged since the last call in this process are not read again.

    Raises:
        DataError: Files cannot be read; names the first 20.
    """
    state = _state(root, keys)
    with _KNOWN_LOCK:
        if state is not None and state in _KNOWN:
            _KNOWN.move_to_end(state)
            return _KNOWN[state]
    chunks = [keys[start : start + _CHUNK] for start in range(0, len(keys), _CHUNK)]
    failures: list[str] = []
    digests: list[bytes] = []
    with ThreadPoolExecutor(max_workers=min(8, (os.cpu_count() or 1) * 2)) as pool:
        for results in pool.map(lambda chunk: [_file_digest(os.path.join(root, key)) for key in chunk], chunks):
            digests += [result for result in results if isinstance(result, bytes)]
            failures += [result for result in results if isinstance(result, str)]
    raise_together(failures, len(keys))
    result = tuple(digests)
    with _KNOWN_LOCK:
        if state is not None:
            _KNOWN[state] = result
        while len(_KNOWN) > _MAX_KNOWN:
            _KNOWN.popitem(last=False)
    return result


def _file_digest(path: str) -> bytes | str:
    """The digest, or what went wrong."""
    try:
        with open_regular(path, IMAGE_BYTES) as file:
            return hashlib.file_digest(file, "sha256").digest()  # type: ignore[arg-type]
    except OSError as error:
        return f"{path}: cannot be read: {error.strerror or error}"


def _state(root: str, keys: Sequence[str]) -> bytes | None:
    """What stands for the files as they are now; None if one is missing."""
    total = hashlib.sha256(os.fsencode(root))
    for key in keys:
        total.update(os.fsencode(key))
        try:
            stat = os.stat(os.path.join(root, key))
        except OSError:
            return None  # reading it will tell why
        total.update(b"\0%d %d %d %d\0" % (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino))
    return total.digest()


MAX_NAMED = 20


def raise_together(failures: Sequence[str | DataError], total: int) -> None:
    """Raises one error for all failures, naming the first 20; does nothing where there are none.

    Raises:
        DamagedImages: One of the failures is such.
        DataError: None is.
    """
    if failures:
        kind = DamagedImages if any(isinstance(one, DamagedImages) for one in failures) else DataError
        raise kind(tell_together([str(one) for one in failures], total))


def tell_together(failures: Sequence[str], total: int) -> str:
    """What is wrong with ``failures`` of ``total`` images, naming the first 20."""
    lines = [f"{len(failures)} of {total} images cannot be used; repair or remove them:"]
    lines += [f"  {printable(failure)}" for failure in failures[:MAX_NAMED]]
    if len(failures) > MAX_NAMED:
        lines.append(f"  and {len(failures) - MAX_NAMED} more")
    return "\n".join(lines)


def quoted(names: Sequence[str]) -> str:
    """Names for a message, each in quotes, the first 20."""
    text = ", ".join(repr(name) for name in names[:MAX_NAMED])
    return f"{text} and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else text
