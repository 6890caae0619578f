"""Every error that tlsearch raises on purpose.

TlsearchError
├── UserError (ValueError)        the user's input is wrong: exit code 2, no traceback
│   ├── UsageError                the command line: options that contradict each other, a name or number out of range
│   ├── SpaceError                the errors of a space.yaml, all of them listed
│   ├── DataError                 the images: a corrupt file, classes that differ, an empty split
│   │   └── DamagedImages         no trial can use them: they end the search
│   ├── WeightsError              weights that cannot be had or do not fit
│   └── StorageError              a search that is not there, is in use, or cannot be written
├── ClusterError (RuntimeError)   Ray cannot be reached or is not what was asked for
├── TrackingError (RuntimeError)  MLflow refuses or cannot be reached
├── SearchStopped (RuntimeError)  the search ended itself: one error too often in a row, damaged images
└── TrialError (RuntimeError)     one trial cannot go on
    ├── Diverged                  the loss is not finite
    ├── Infeasible                out of memory, nothing left to halve
    └── FrozenMoved               a frozen tensor changed: a bug of ours
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tlsearch.core.secrets import mask

_MOST_TEXT = 1000  # letters of one line of an error that quotes a file


Kind = Literal["rule", "absent"]  # of a SpaceProblem


class TlsearchError(Exception):
    """Base of all errors of this package; secrets in its text are masked."""

    def __init__(self, *parts: object) -> None:
        super().__init__(*(mask(one) if isinstance(one, str) else one for one in parts))


class UserError(TlsearchError, ValueError):
    """The user's input breaks a rule; the message gives rule, value and place."""


class UsageError(UserError):
    """The command line cannot be followed: options contradict each other, or one cannot take its value."""


@dataclass(frozen=True, kw_only=True)
class SpaceProblem:
    """One broken rule in a space.yaml.

    Attributes:
        path: Keys from the root to the value, e.g. ``("space", "head_lr", "log", 0)``.
        message: The rule, the value, and the nearest right name where there is one.
        file: The file the value stands in; empty where it came from elsewhere (``--set``).
        line: Line of the value, from 1; 0 where unknown.
        column: Column of the value, from 1; 0 where unknown.
        kind: ``absent`` where what the value names is not on this machine, though it may be on another; ``rule`` where
            the value is wrong on every machine.
    """

    path: tuple[str | int, ...]
    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    kind: Kind = "rule"

    def __post_init__(self) -> None:
        lines = mask(self.message).split("\n")
        cut = (line if len(line) <= _MOST_TEXT else f"{line[:_MOST_TEXT]}..." for line in lines)
        object.__setattr__(self, "message", "\n".join(cut))

    @property
    def dotted(self) -> str:
        """The path as a reader writes it: ``space.head_lr.log[0]``."""
        text = ""
        for part in self.path:
            text += f"[{part}]" if isinstance(part, int) else f".{part}"[:_MOST_TEXT]
        return text.lstrip(".")

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}: " if self.line else ""
        where = f"{self.dotted}: " if self.path else ""
        return f"{place}{where}{self.message}"


class SpaceError(UserError):
    """The errors of a space.yaml, in the order of the file."""

    def __init__(self, problems: Sequence[SpaceProblem]) -> None:
        in_order = sorted(problems, key=lambda one: (one.line, one.column))
        self.faults: tuple[SpaceProblem, ...] = tuple(in_order)  # named as in the JSON of `check`
        super().__init__("\n".join(map(str, in_order)))


class DataError(UserError):
    """The images, labels or splits break a rule."""


class DamagedImages(DataError):
    """What images hold is damaged, or another than when they were listed: another trial cannot use them, either."""


class WeightsError(UserError):
    """Pretrained weights cannot be had, or do not fit their backbone."""


class StorageError(UserError):
    """A search's folder is missing, held by another process, or cannot be written."""


class ClusterError(TlsearchError, RuntimeError):
    """Ray cannot be reached, or is not what was asked for."""


class TrackingError(TlsearchError, RuntimeError):
    """The MLflow store refuses or cannot be reached."""


class SearchStopped(TlsearchError, RuntimeError):
    """The search stopped itself: one error came too often in a row, or images are damaged."""


class TrialError(TlsearchError, RuntimeError):
    """One trial cannot go on."""


class Diverged(TrialError):
    """The training loss is not finite: the trial is pruned and recorded as infeasible."""


class Infeasible(TrialError):
    """The trial does not fit the device's memory, with nothing left to halve."""


class FrozenMoved(TrialError):
    """A tensor that must stand still has changed; names the first such tensor."""


_OUT_OF_MEMORY = (
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",  # cuDNN 8
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",  # cuDNN 9
    "can't allocate memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device's (or the host's) memory is used up; torch's are known by their texts."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _OUT_OF_MEMORY)
