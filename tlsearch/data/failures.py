"""One error for many broken files."""

from __future__ import annotations

from collections.abc import Sequence

from tlsearch.core.errors import DataError
from tlsearch.core.printable import printable

MAX_NAMED = 20


def raise_together(failures: Sequence[str], total: int) -> None:
    """Raises one DataError for all failures, naming the first 20; does nothing where there are none."""
    if failures:
        raise DataError(tell_together(failures, total))


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
