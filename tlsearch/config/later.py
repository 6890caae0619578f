"""What space.yaml can say but this version does not build yet: delete an entry when its part comes.

Until then such a value is a listed fault, never silently ignored; the value that changes nothing
(the default) is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

NOT_YET = "not in this version yet"

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_url(value: Any) -> bool:
    """Whether a value is text like ``https://...`` or ``s3://...``."""
    return isinstance(value, str) and _URL.match(value) is not None


@dataclass(frozen=True, kw_only=True)
class Later:
    """One place of the file with values that are not built yet.

    Attributes:
        path: Keys from the root; ``*`` stands for any key.
        unbuilt: Whether a value is one of them.
        instead: What to write meanwhile.
    """

    path: tuple[str, ...]
    unbuilt: Callable[[Any], bool]
    instead: str


def _other_than(*allowed: Any) -> Callable[[Any], bool]:
    # 0 == False in Python, hence the type
    return lambda value: not any(type(value) is type(one) and value == one for one in allowed)


LATER: tuple[Later, ...] = (Later(path=("cache", "views"), unbuilt=_other_than(1), instead="write 1"),)
