"""What searcher and scheduler share about one run of Tune."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Watch:
    """The trials that Tune holds, and the first error that came up inside Tune's calls.

    Tune swallows or rewraps exceptions of its plug-ins; here they are kept as they are, the run is
    brought to an end, and the engine raises them.
    """

    def __init__(self) -> None:
        self.handed_out: dict[str, int] = {}  # Tune's trial id -> trial number
        self.error: Exception | None = None

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Keeps an exception of the body; the caller then answers so that the run ends."""
        try:
            yield
        except Exception as error:
            self.error = self.error or error
