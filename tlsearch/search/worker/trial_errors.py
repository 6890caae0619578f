"""What an exception in a trial means: retry, give up, end the worker with it, or end the search."""

from __future__ import annotations

import errno
import re
import traceback
from dataclasses import dataclass

from tlsearch.core.errors import DamagedImages, Diverged, Infeasible, SearchStopped, TlsearchError, is_out_of_memory
from tlsearch.core.secrets import mask
from tlsearch.core.types import EndReason, TrialOutcome

_TRACEBACK_CHARACTERS = 4000
_NO_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
# Libraries in other languages put the number into the text of an error of their own.
_NO_WRITING_TOLD = re.compile(rf"\(os error ({'|'.join(map(str, _NO_WRITING))})\)")
_STICKY = ("CUDA error", "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR", "device-side assert")


@dataclass(frozen=True, kw_only=True)
class Classified:
    """An exception, judged.

    Attributes:
        retry: Whether a second try from the checkpoint can help.
        sticky: The process is spoilt (a CUDA context that has failed stays failed).
    """

    outcome: TrialOutcome
    retry: bool = False
    sticky: bool = False


def classify(error: Exception) -> Classified:
    """Judges an exception of a trial's step; our own errors say that a retry is of no use."""
    text = mask(f"{type(error).__name__}: {error}")
    trace = mask("".join(traceback.format_exception(error)))[-_TRACEBACK_CHARACTERS:]
    if isinstance(error, Diverged):
        reason = EndReason.DIVERGED
    elif isinstance(error, Infeasible) or is_out_of_memory(error):
        reason = EndReason.MEMORY
    elif _cannot_write(error):
        reason = EndReason.STORAGE
    else:
        reason = EndReason.ERROR
    failed = reason is EndReason.ERROR
    return Classified(
        outcome=TrialOutcome(reason=reason, error=text, traceback=trace),
        retry=failed and not isinstance(error, TlsearchError),
        sticky=failed and any(sign in str(error) for sign in _STICKY),
    )


def _cannot_write(error: BaseException) -> bool:
    """Whether a disk that is full or read-only is behind an error."""
    cause: BaseException | None = error
    while cause is not None:
        if (isinstance(cause, OSError) and cause.errno in _NO_WRITING) or _NO_WRITING_TOLD.search(str(cause)):
            return True
        cause = cause.__cause__
    return False


class ErrorStreak:
    """Counts trials that failed one after another with the same error.

    Errors are the same when they differ in numbers only: addresses, sizes, trial numbers. The first trial that damaged
    images have ended is enough: the next one reads the same images. Those that could not be read just now are counted
    like any error: a share may be there again.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._error, self._count = "", 0

    def broken(self) -> None:
        """A trial has ended without failing."""
        self._error, self._count = "", 0

    def failed(self, number: int, error: str) -> SearchStopped | None:
        """A trial has failed; the error to stop the search with, when the limit is reached."""
        kind, _, text = error.partition(": ")  # as ``classify`` writes it
        if kind == DamagedImages.__name__:
            return SearchStopped(
                f"the search has stopped, since trial {number} has met damaged images, which every trial reads: "
                f"{text}\n`tlsearch resume` goes on once they are what they were when the search began; with repaired "
                "or removed images start a new search"
            )
        key = re.sub(r"0x[0-9a-fA-F]+|\d+", "#", error.partition("\n")[0])
        self._count = self._count + 1 if key == self._error else 1
        self._error = key
        if self._count < self._limit:
            return None
        return SearchStopped(
            f"the same error ended {self._count} trials in a row (search.max_failed_trials = {self._limit}), "
            f"so the search has stopped; the last was trial {number}: {error}"
        )
