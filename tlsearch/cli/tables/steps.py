"""What a command does before its search has begun: one line a step, from the first second on."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from tlsearch.core.printable import printable
from tlsearch.core.text import format_s

_REFRESHES_PER_S = 4


class Steps:
    """Shows one step after another; a context manager.

    On a terminal the step that is under way counts its seconds, and one that has taken a second or more stays with
    what it took. Elsewhere each step is a line when it begins.
    """

    def __init__(self, console: Console) -> None:
        """Shows nothing yet."""
        self._console = console
        self._text, self._began = "", 0.0
        self._live: Live | None = None

    def __enter__(self) -> Steps:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over()

    def __call__(self, text: str) -> None:
        """Ends the step before and begins another, such as ``starting Ray``."""
        self.over()
        self._text, self._began = printable(text), time.monotonic()
        if not self._console.is_terminal or self._console.is_dumb_terminal:
            self._console.print(self._text, soft_wrap=True)
            return
        self._live = Live(
            console=self._console, refresh_per_second=_REFRESHES_PER_S, get_renderable=self._line, transient=True
        )
        self._live.start(refresh=True)

    def over(self) -> None:
        """Ends the step that is under way, if there is one."""
        live, self._live = self._live, None
        if live is None:
            return
        live.stop()
        if time.monotonic() - self._began >= 1:
            self._console.print(self._line(), soft_wrap=True)

    def _line(self) -> Text:
        return Text(f"{self._text}  {format_s(time.monotonic() - self._began)}", style="dim")
