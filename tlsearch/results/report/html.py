"""Small pieces of HTML, everything in them escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from tlsearch.core.printable import printable
from tlsearch.results.report.plots.style import Plot


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of a table; ``value`` is what it is sorted by, where that is not its text."""

    text: str
    value: float | None = None
    wrap: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of a table, of a trial where ``trial`` is set."""

    cells: Sequence[Cell | str]
    trial: int | None = None
    best: bool = False


def table(heads: Sequence[str], rows: Sequence[Row], *, numeric: Sequence[str] = (), shown: int | None = None) -> str:
    """A table; columns named in ``numeric`` are aligned right. With ``shown`` it can be sorted and is cut there."""
    right = [head in numeric for head in heads]
    head = "".join(_head(text, on) for text, on in zip(heads, right, strict=True))
    body = "".join(_row(row, right) for row in rows)
    options = f' class="sortable" data-shown="{shown}"' if shown else ""
    return f'<div class="table"><table{options}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _head(text: str, right: bool) -> str:
    words = escape(text).replace("_", "_<wbr>")  # a long name must not make its column wide
    return f'<th class="n">{words}</th>' if right else f"<th>{words}</th>"


def _row(row: Row, right: Sequence[bool]) -> str:
    cells = [cell if isinstance(cell, Cell) else Cell(text=cell) for cell in row.cells]
    options = f' data-trial="{row.trial}"' if row.trial is not None else ""
    options += ' class="best"' if row.best else ""
    return f"<tr{options}>{''.join(_cell(c, n) for c, n in zip(cells, right, strict=True))}</tr>"


def _cell(cell: Cell, right: bool) -> str:
    classes = [name for name, on in (("n", right), ("wrap", cell.wrap)) if on]
    options = f' class="{" ".join(classes)}"' if classes else ""
    options += f' data-value="{cell.value!r}"' if cell.value is not None else ""
    return f"<td{options}>{escape(printable(cell.text))}</td>"


def plot_figure(plot: Plot) -> str:
    """A plot with its title and caption, or why there is none."""
    wide = ' class="wide"' if plot.wide else ""
    if plot.missing:
        text = plot.missing[0].upper() + plot.missing[1:].rstrip(".")
        return f'<figure{wide}><h3>{escape(plot.title)}</h3><div class="missing">{inline(text)}.</div></figure>'
    caption = f"<figcaption>{escape(plot.caption)}</figcaption>"
    frames = f'<div class="frame">{plot.svg}</div>'
    if plot.narrow:
        frames = f'<div class="frame broad">{plot.svg}</div><div class="frame narrow">{plot.narrow}</div>'
    return f"<figure{wide}><h3>{escape(plot.title)}</h3>{frames}{caption}</figure>"


def grid(*parts: str) -> str:
    """Parts side by side where there is room."""
    return f'<div class="grid">{"".join(parts)}</div>'


def inline(text: str) -> str:
    """Escaped text in which `backticks` are code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))


def section(name: str, title: str, *parts: str) -> str:
    """A section that the page's list of contents leads to."""
    return f'<section id="{name}"><h2>{escape(title)}</h2>{"".join(parts)}</section>'


def paragraph(text: str, *, note: bool = False) -> str:
    """One paragraph."""
    return f'<p class="note">{inline(text)}</p>' if note else f"<p>{inline(text)}</p>"
