"""What an exception in a trial means: retry, give up, or end the worker with it."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import Literal

from tlsearch.errors import Diverged, Infeasible, TlsearchError

_TRACEBACK_CHARACTERS = 4000
_STICKY = ("CUDA error", "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR", "device-side assert")


@dataclass(frozen=True, kw_only=True)
class Classified:
    """An exception, judged.

    Attributes:
        reason: diverged and memory end the trial without failing it; error is a failure.
        retry: Whether a second try from the checkpoint can help.
        sticky: The process is spoilt (a CUDA context that has failed stays failed).
    """

    reason: Literal["diverged", "memory", "error"]
    error: str
    traceback: str
    retry: bool = False
    sticky: bool = False


def classify(error: Exception) -> Classified:
    """Judges an exception of a trial's step; our own errors say that retrying is no use."""
    text = f"{type(error).__name__}: {error}"
    trace = "".join(traceback.format_exception(error))[-_TRACEBACK_CHARACTERS:]
    if isinstance(error, Diverged):
        return Classified(reason="diverged", error=text, traceback=trace)
    if isinstance(error, Infeasible | MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return Classified(reason="memory", error=text, traceback=trace)
    sticky = any(sign in str(error) for sign in _STICKY)
    return Classified(
        reason="error", error=text, traceback=trace, retry=not isinstance(error, TlsearchError), sticky=sticky
    )
