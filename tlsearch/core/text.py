"""How numbers, counts and durations are written for people: in the terminal, in the report, in messages."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

Value = str | int | float | bool | None

_EXACT_DIGITS = 4  # a value with more significant digits is rounded
_ROUNDED_DIGITS = 2
_SMALLEST_FIXED, _LARGEST_FIXED = 0.01, 1e5  # beyond these a column is written with exponents


@dataclass(frozen=True, kw_only=True)
class NumberForm:
    """One way of writing for all numbers of a column, so that they can be compared by eye.

    Attributes:
        exponent: ``1.0e-03`` instead of ``0.001``; zero is ``0`` in either.
        decimals: Digits after the point.
    """

    exponent: bool = False
    decimals: int = 0

    @classmethod
    def of(cls, values: Iterable[Value]) -> NumberForm:
        """The form for a column: exact where few digits are enough, else two digits of its smallest number."""
        numbers = [abs(v) for v in values if isinstance(v, float) and math.isfinite(v) and v]
        if not numbers:
            return cls()
        exponent = min(numbers) < _SMALLEST_FIXED or max(numbers) >= _LARGEST_FIXED
        exact = all(float(f"{v:.{_EXACT_DIGITS}g}") == v for v in numbers)
        if exponent:
            return cls(exponent=True, decimals=max(map(_mantissa_digits, numbers)) if exact else _ROUNDED_DIGITS - 1)
        if exact:
            return cls(decimals=max(map(_decimals, numbers)))
        return cls(decimals=max(0, _ROUNDED_DIGITS - 1 - math.floor(math.log10(min(numbers)))))

    def text(self, value: Value) -> str:
        """One value of the column; a value that is not a float is written as it is, None as ``none``."""
        if value is None:
            return "none"
        if not isinstance(value, float) or not math.isfinite(value):
            return str(value)
        if value == 0:
            return "0"
        return f"{value:.{self.decimals}{'e' if self.exponent else 'f'}}"


def html_table(heads: Sequence[str], rows: Iterable[Sequence[object]], *, caption: str = "") -> str:
    """A table for notebooks; all texts are escaped."""
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    head = "".join(f"<th>{escape(one)}</th>" for one in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _mantissa_digits(value: float) -> int:
    """Digits after the point of a mantissa, at least one: ``1.0e-03``."""
    return max(1, len(f"{value:.{_EXACT_DIGITS - 1}e}".split("e")[0].rstrip("0")) - 2)


def _decimals(value: float) -> int:
    return next(places for places in range(20) if round(value, places) == value)


def plural(count: int, word: str, many: str = "") -> str:
    """``1 trial``, ``2 trials``; ``many`` where it is not the word and an s: ``2 entries``."""
    return f"{count:,} {word if count == 1 else many or word + 's'}"


def one_of(names: Iterable[str]) -> str:
    """``a, b or c``."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def agree(count: int, one: str, many: str) -> str:
    """The verb, or any other word, that goes with a count: ``is`` or ``are``."""
    return one if count == 1 else many


def format_s(seconds: float, *, tenths: bool = False) -> str:
    """Seconds as ``1h02m``, ``3m05s`` or ``12s``; with ``tenths`` below ten seconds as ``0.3s``."""
    if tenths and seconds < 9.95:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


def about_s(seconds: float) -> str:
    """An estimate in the precision that it has: ``about 40 s``, ``about 12 min``, ``about 3.5 h``, ``about 2 days``."""
    _, unit, step, name = next(one for one in _ESTIMATES if seconds < one[0])
    return f"about {max(1, round(seconds / unit / step)) * step:g} {name}"


# Below this number of seconds: the unit in seconds, the step in units, the name of the unit.
_ESTIMATES: tuple[tuple[float, float, float, str], ...] = (
    (57.5, 1, 5, "s"),
    (1170, 60, 1, "min"),
    (3450, 60, 5, "min"),
    (36000, 3600, 0.5, "h"),
    (129600, 3600, 1, "h"),
    (math.inf, 86400, 1, "days"),
)


def command(*words: str) -> str:
    """A command of tlsearch in a message, quoted so that it can be pasted into a shell whatever the names in it."""
    return f"`tlsearch {shlex.join(words)}`"


def number_text(value: float | None, form: str = ".4f", *, none: str = "-") -> str:
    """A number as the cell of a table shows it."""
    return none if value is None else format(value, form)


def first_line(text: object, empty: str = "") -> str:
    """The first line of an error, or of another text, that holds something.

    Args:
        empty: What stands for a text without one; by default the name of its class.
    """
    return next((line.strip() for line in str(text).splitlines() if line.strip()), empty or type(text).__name__)


def last_line(text: object, empty: str = "") -> str:
    """As ``first_line``, the last one."""
    return first_line("\n".join(reversed(str(text).splitlines())), empty or type(text).__name__)
