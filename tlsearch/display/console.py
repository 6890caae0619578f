"""Consoles, tables and step lines in which names are data: no markup, no emoji codes, no control characters."""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

import rich.console
import rich.table
from rich.cells import cell_len
from rich.text import Text

from tlsearch.core.printable import ENCODING_BYTES, ENCODING_ERRORS, printable, printable_lines
from tlsearch.core.secrets import mask
from tlsearch.core.text import format_s

if TYPE_CHECKING:
    from rich.live import Live

_REFRESHES_PER_S = 4  # of a step's seconds
_PIPED_WIDTH = 10_000  # a file or a pipe has no width of its own, unless COLUMNS says so; rich would take 80

_NOTEBOOK_S, _NOTEBOOK_WIDTH = 1.0, 110


class Console(rich.console.Console):
    """Prints texts as they are, secrets masked; codes that a terminal would obey are shown escaped."""

    def __init__(self, *, stderr: bool) -> None:
        """For one of the process's own streams."""
        stream = sys.stderr if stderr else sys.stdout
        width = None if stream.isatty() or os.environ.get("COLUMNS", "").isdecimal() else _PIPED_WIDTH
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False, width=width)

    def print(self, *objects: Any, soft_wrap: bool | None = None, **options: Any) -> None:
        """As rich's, but a line of text is not broken: a command or a path in it can be copied."""
        lines = all(isinstance(one, str | Text) for one in objects)
        super().print(*objects, soft_wrap=lines if soft_wrap is None else soft_wrap, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Where rich turns every plain text, of a table too, into what it prints; before it breaks lines."""
        return super().render_str(printable_lines(mask(text)), **options)


class Table(rich.table.Table):
    """A table whose cells are names and figures, each in one line, and which is as wide as its title and caption."""

    def __init__(self, *, title: str = "", caption: str = "", **options: Any) -> None:
        """As rich's, which breaks a title or a caption that is longer than the rows."""
        widest = max(cell_len(printable(text)) for text in (title, caption))
        super().__init__(title=title or None, caption=caption or None, min_width=widest or None, **options)

    def add_row(self, *cells: Any, **options: Any) -> None:
        """As rich's, with line breaks and tabs in texts shown escaped."""
        super().add_row(*(printable(cell) if isinstance(cell, str) else cell for cell in cells), **options)


class NotebookLive:
    """A live display in the cell of a notebook, as rich's ``Live`` is on a terminal."""

    def __init__(self, get_renderable: Callable[[], rich.console.RenderableType]) -> None:
        self._get = get_renderable
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._refresh, name="notebook-live", daemon=True)
        self._handle: Any = None

    def start(self, refresh: bool = True) -> None:
        """Shows it, and keeps it up to date."""
        from IPython.display import HTML, display

        self._handle = display(HTML(self._html()), display_id=True)
        self._thread.start()

    def stop(self) -> None:
        """Shows it for the last time."""
        self._ended.set()
        self._thread.join()
        self._update()

    def _refresh(self) -> None:
        while not self._ended.wait(_NOTEBOOK_S):
            self._update()

    def _update(self) -> None:
        from IPython.display import HTML

        self._handle.update(HTML(self._html()))

    def _html(self) -> str:
        console = rich.console.Console(
            record=True, file=io.StringIO(), width=_NOTEBOOK_WIDTH, force_jupyter=False, markup=False, emoji=False
        )
        console.print(self._get())
        return console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")


def show_all_texts() -> None:
    """Has the process's streams escape what their encoding lacks, where Python would end with a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=ENCODING_ERRORS)


def print_data(text: str) -> None:
    """Text for programs on standard output: a file's name that is not UTF-8 comes out byte for byte."""
    text = mask(text)
    if not hasattr(sys.stdout, "buffer"):
        sys.stdout.write(text)
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode(sys.stdout.encoding or "utf-8", ENCODING_BYTES))
    sys.stdout.buffer.flush()


class Steps:
    """Shows one step after another; a context manager.

    On a terminal the step that is under way counts its seconds, and one that has taken a second or more stays with
    what it took. Elsewhere each step is a line when it begins.
    """

    def __init__(self, console: rich.console.Console) -> None:
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
        from rich.live import Live

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
