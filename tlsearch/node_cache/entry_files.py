"""The entries of a store as files: listed, mapped, compared with their checksums, removed."""

from __future__ import annotations

import logging
import os
import weakref
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlsearch.core.codec import read_json
from tlsearch.node_cache.locked_files import hold, unused

_log = logging.getLogger(__name__)
_DTYPES = {"uint8": np.uint8, "uint16": np.uint16, "float16": np.float16, "float32": np.float32}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A committed entry: the path of its files without a suffix, and its data, more than one of an older version."""

    path: Path
    data: tuple[Path, ...]
    last_used: float

    @property
    def num_bytes(self) -> int:
        return sum(map(num_bytes_of, self.data))

    def key(self) -> dict[str, Any]:
        """What it is of.

        Raises:
            OSError, ValueError, LookupError, TypeError: It was removed just now, or is damaged.
        """
        meta: Any = read_json(Path(f"{self.path}.json"))
        return dict(meta["key"])

    def remove(self) -> bool:
        """Removes it unless it is used."""
        with unused(self.path, *self.data) as free:
            if free:
                self.unlink()
            return free

    def unlink(self) -> None:
        """Removes its files; the caller holds its locks."""
        Path(f"{self.path}.json").unlink(missing_ok=True)  # first, so that half an entry is never taken for whole
        for path in self.data:
            path.unlink(missing_ok=True)


def entries(folder: Path) -> list[Entry]:
    """The committed entries of a store."""
    data: dict[str, list[Path]] = {}
    for path in folder.glob("*"):
        if path.suffix not in (".json", ".lock", ".tmp"):
            data.setdefault(path.stem, []).append(path)
    found = []
    for sidecar in folder.glob("*.json"):
        with suppress(FileNotFoundError):
            last_used = sidecar.stat().st_mtime
            found.append(
                Entry(path=sidecar.with_suffix(""), data=tuple(data.get(sidecar.stem, ())), last_used=last_used)
            )
    return found


def map_array(path: Path) -> NDArray[Any] | None:
    """Maps an entry's array, copy-on-write, once it was compared with its checksum; None where it is not whole."""
    data, sidecar = Path(f"{path}.bin"), Path(f"{path}.json")
    number = None
    try:
        meta: Any = read_json(sidecar)
        number = hold(data)
        if number is None:
            return None
        shape = tuple(int(side) for side in meta["shape"])
        # Copy-on-write: writable, as torch wants its memory, yet nothing ever reaches the file.
        array: NDArray[Any] = np.memmap(data, dtype=_DTYPES[meta["dtype"]], mode="c", shape=shape)
        # Once a process: an epoch reads all of it too, and at about the same rate.
        if zlib.crc32(array.data, checksum_of(shape, array.dtype.name)) != meta["crc32"]:
            raise ValueError("it does not match its checksum")
        weakref.finalize(array, os.close, number)
        number = None
        os.utime(sidecar)  # its last use
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, OverflowError) as error:
        _log.warning("%s cannot be used and is built again: %s", data, error)
        return None
    finally:
        if number is not None:
            os.close(number)
    return array


def checksum_of(shape: tuple[int, ...], dtype: str) -> int:
    """The CRC-32 of an array's head, which that of its bytes goes on from."""
    return zlib.crc32(f"{dtype}{list(shape)}".encode())


def num_bytes_of(path: Path) -> int:
    """The size of a file; 0 where it has gone."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
