"""Standard output that may end while a command runs: a closed pipe, a lost terminal, a full disk.

A search goes on without it: what it has found is in its folder, and hours of training are worth more than the lines
about them. What cannot be written is dropped, and the command says why at its end.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO, TextIO

from tlsearch.core.secrets import mask

logger = logging.getLogger(__name__)

GOES_ON = "the search goes on: `tlsearch status` shows it"


class EndingStream:
    """A text stream that drops texts that it cannot write any more.

    Attributes:
        error: Why the first write failed; None while all is well.
        note: What becomes of the command then; where it is empty, a closed pipe is not reported.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None
        self.note = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def buffer(self) -> _Bytes:
        """The stream of bytes below, which ends as this one does."""
        return _Bytes(self._stream.buffer, self._try)

    def write(self, text: str) -> int:
        """As of a file; lost text counts as written."""
        masked = mask(text)  # also warnings, tracebacks, and what other processes print through this one
        self._try(lambda: self._stream.write(masked))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """As of a file."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """As of a file."""
        self._try(self._stream.flush)

    def _try(self, call: Callable[[], object]) -> None:
        if self.error is None:
            try:
                call()
            except OSError as error:
                self._end(error)

    def _end(self, error: OSError) -> None:
        self.error = error
        # What is still in buffers, and what libraries write by the descriptor, must not fail again.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)
        if self.note:
            logger.warning("standard output is lost (%s); %s", error.strerror, self.note)


class _Bytes:
    """The bytes below a text stream."""

    def __init__(self, stream: BinaryIO, attempt: Callable[[Callable[[], object]], None]) -> None:
        self._stream, self._try = stream, attempt

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, data: bytes) -> int:
        """As of a file; lost text counts as written."""
        self._try(lambda: self._stream.write(data))
        return len(data)

    def flush(self) -> None:
        """As of a file."""
        self._try(self._stream.flush)


def when_output_ends(note: str) -> None:
    """What to say, on standard error and in the search's log, if standard output ends from here on."""
    if isinstance(sys.stdout, EndingStream):
        sys.stdout.note = note


def open_streams() -> EndingStream:
    """Makes the standard streams safe to write for a command; gives standard output.

    A stream that was closed before the start is opened on the null device: the next file that is opened would get its
    descriptor, and everything that is printed.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if name == "stdin" else "w", closefd=False))  # for the process's life
    output = EndingStream(sys.stdout)
    sys.stdout = output
    sys.stderr = EndingStream(sys.stderr)
    return output


def exit_code(output: EndingStream, code: object) -> object:
    """The code a command ends with: 1 where it would be 0, but not all of its output could be written."""
    output.flush()
    if output.error is None:
        return code
    if output.error.errno != errno.EPIPE and not output.note:
        sys.stderr.write(f"standard output cannot be written: {output.error.strerror}\n")
    return code or 1
