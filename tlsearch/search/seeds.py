"""Seeds that follow from the search's seed and a trial's number, so that a restart changes nothing."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, purpose: str, number: int) -> int:
    """A seed in 0 .. 2^31 - 1 for one purpose of one trial; equal on every machine and version."""
    digest = hashlib.sha256(f"{seed}:{purpose}:{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def derive_fraction(seed: int, purpose: str, number: int) -> float:
    """As ``derive_seed``, a number in [0, 1)."""
    return derive_seed(seed, purpose, number) / 2**31
