"""How fast this node computes and reads, measured once: what decides whether a feature map is worth storing.

One small JSON file for each device, precision and number of threads in ``rates/`` of the cache folder, so that all
processes and later searches of the node decide alike.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor
from torch.nn import functional as F

from tlsearch.codec import read_json
from tlsearch.data import cache_directory
from tlsearch.types import CacheSpec

_log = logging.getLogger(__name__)
_FORMAT = 1  # of the files; counts up when what is measured changes
_LOCK_TIMEOUT_S = 60.0
_REPEATS = 5  # the fastest counts: others tell of neighbours
_ROW_BYTES, _NUM_ROWS, _BATCH = 64 * 1024, 512, 32  # a file of 32 MiB, about what one batch of maps is gathered from
_IMAGES = {"cpu": 8, "cuda": 64}
_CHANNELS, _SIDE = (3, 32, 64, 64, 128), 64

# Orders of magnitude, where nothing can be measured and kept: per thread on a CPU.
_MACS_PER_S = {"cpu": 2.0**34, "cuda": 2.0**43}
_BYTES_PER_S = 2.0**31

_known: dict[str, Rates] = {}  # of this process, by file


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What a node does in a second, as powers of two.

    Measurements scatter; a power of two is the same again unless the true rate lies near the middle between two. So a
    search that is repeated on a node whose file was cleared decides as before but for such a case.

    Attributes:
        macs_per_s: Multiply-adds of a small convolutional network.
        bytes_per_s: Of random rows, gathered from a mapped file and brought to the device.
    """

    macs_per_s: float
    bytes_per_s: float


def node_rates(device: torch.device, precision: str, cache: CacheSpec) -> Rates:
    """The rates of a device with this process's threads; measured, in a fraction of a second, if no one has yet.

    Args:
        device: Where trials compute.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        cache: Where the file is kept. Where it cannot be, orders of magnitude are taken: they at least stay the same.
    """
    content = _circumstances(device, precision)
    name = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
    path = cache_directory(cache) / "rates" / f"{name}.json"
    if str(path) not in _known:
        _known[str(path)] = _read(path) or _measure_once(path, content, device, precision)
    return _known[str(path)]


def forget_rates() -> None:
    """Drops what this process knows of the node's rates."""
    _known.clear()


def _circumstances(device: torch.device, precision: str) -> dict[str, object]:
    """All that the rates depend on; the node's name, since some nodes share a cache folder."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "format": _FORMAT,
        "node": platform.node(),
        "device": f"{device.type} {name}",
        "precision": precision,
        "num_threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _measure_once(path: Path, content: Mapping[str, object], device: torch.device, precision: str) -> Rates:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(path.with_suffix(".lock"), timeout=_LOCK_TIMEOUT_S):
            found = _read(path)  # another process may have measured while we waited
            if found is None:
                found = measure(device, precision, path.parent)
                _write(path, found, content)
            return found
    except (Timeout, OSError) as error:
        _log.warning("this node's rates cannot be measured and kept, so common ones are taken: %s", error)
        threads = torch.get_num_threads() if device.type == "cpu" else 1
        macs_per_s = _MACS_PER_S.get(device.type, _MACS_PER_S["cuda"]) * _power_of_two(threads)
        return Rates(macs_per_s=macs_per_s, bytes_per_s=_BYTES_PER_S)


def measure(device: torch.device, precision: str, folder: Path) -> Rates:
    """Measures both rates; the process's random state is left as it is.

    Args:
        folder: Where the file that is read is written, and removed.

    Raises:
        OSError: It cannot be written.
    """
    return Rates(
        macs_per_s=_power_of_two(_macs_per_s(device, precision)),
        bytes_per_s=_power_of_two(_bytes_per_s(device, folder)),
    )


def _power_of_two(value: float) -> float:
    return float(2.0 ** round(math.log2(value)))


def _macs_per_s(device: torch.device, precision: str) -> float:
    """Of a stack of 3 x 3 convolutions with a ReLU each, as trials run them: channels_last, without a graph."""
    pairs = list(zip(_CHANNELS[:-1], _CHANNELS[1:], strict=True))
    weights = [torch.full((out, into, 3, 3), 1 / (9 * into), device=device) for into, out in pairs]
    images = torch.ones(_IMAGES.get(device.type, _IMAGES["cuda"]), 3, _SIDE, _SIDE, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.bfloat16)

    def run() -> int:
        rows, macs = images, 0
        for weight in weights:
            rows = F.relu_(F.conv2d(rows, weight, stride=2 if weight.shape[1] < weight.shape[0] else 1, padding=1))
            macs += rows.numel() * weight[0].numel()
        return macs

    with torch.inference_mode(), torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32"):
        return run() / _fastest_s(run, device)


def _bytes_per_s(device: torch.device, folder: Path) -> float:
    """Of random rows of a file that the system has in memory, as the features of a search are after one epoch."""
    row = np.zeros(_ROW_BYTES // 4, dtype=np.float32)
    order = torch.from_numpy(np.random.default_rng(0).permutation(_NUM_ROWS))
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(_NUM_ROWS):
            file.write(row.data)
        file.flush()
        rows = torch.from_numpy(np.memmap(file, dtype=np.float32, mode="c", shape=(_NUM_ROWS, len(row))))

        def run() -> None:
            for index in order.split(_BATCH):  # type: ignore[no-untyped-call]
                _bring(rows.index_select(0, index), device)

        return _NUM_ROWS * _ROW_BYTES / _fastest_s(run, device)


def _bring(rows: Tensor, device: torch.device) -> None:
    if device.type == "cuda":
        rows = rows.pin_memory()
    rows.to(device, non_blocking=True)


def _fastest_s(run: Callable[[], object], device: torch.device) -> float:
    seconds = []
    for _ in range(_REPEATS + 1):  # the first one warms up
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return max(min(seconds[1:]), 1e-9)


def _read(path: Path) -> Rates | None:
    """What was measured; None where nothing was, or the file is damaged."""
    try:
        plain: Any = read_json(path)
        rates = Rates(macs_per_s=float(plain["macs_per_s"]), bytes_per_s=float(plain["bytes_per_s"]))
        for name, value in asdict(rates).items():
            if not 1 <= value < math.inf or value != _power_of_two(value):
                raise ValueError(f"{name} must be a power of two, not {value}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        _log.warning("%s cannot be used; the rates are measured anew: %s", path, error)
        return None
    return rates


def _write(path: Path, rates: Rates, content: Mapping[str, object]) -> None:
    """Publishes what was measured; the caller holds the lock."""
    temporary = path.with_suffix(".tmp")
    try:
        temporary.write_text(json.dumps({**asdict(rates), **content}, indent=1), encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
