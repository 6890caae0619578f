"""Groups of images by a regular expression of the user's, matched in a process that can be ended.

Some expressions try exponentially many ways on a path of thirty letters, and Python's matching cannot be interrupted
from within. In a process of its own it ends when its time is over.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

from tlsearch.core.errors import DataError

LIMIT_S = 20.0
_PATHS_PER_S = 20_000  # slower than any expression without such a search, on a slow machine
_SCRIPT = """
import json, re, sys
pattern, paths = json.load(sys.stdin)
pattern = re.compile(pattern)
found = [pattern.search(path) for path in paths]
print(json.dumps([m and ((m.group(1) if pattern.groups else None) or m.group()) for m in found]))
"""


def find_groups(group_by: str, paths: Sequence[str]) -> list[str | None]:
    """The first group of the expression in each path, or all that it matches; None where it does not match.

    Raises:
        DataError: It is no regular expression, or it takes too long.
    """
    limit_s = LIMIT_S + len(paths) / _PATHS_PER_S
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _SCRIPT],
            input=json.dumps([group_by, list(paths)]),
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DataError(
            f"data.split.group_by {group_by!r} takes more than {limit_s:.0f} s on {len(paths):,} paths: repeats inside "
            "of repeats, as in (a+)+, try exponentially many ways; write it without them"
        ) from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["its process was killed"])[-1]
        raise DataError(f"data.split.group_by must be a regular expression: {group_by!r}: {reason}")
    found: list[str | None] = json.loads(done.stdout)
    return found
