"""How all plots look, and how a figure becomes a picture: SVG for the page, PNG for a folder or a slide.

No pyplot: figures are made directly, so nothing global is left behind and no display is needed.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation

INK, MUTED, FAINT, GRID = "#1f2933", "#5f6b78", "#aab3bd", "#e7eaee"
BEST, DONE, CUT, BAD, OTHER = "#d9730d", "#2b6cb0", "#9aa5b1", "#b42318", "#0f8a7e"
# Unfreeze depths 0..5 and other small ordered sets, light to dark; readable on white.
STEPS = ("#9cc5e3", "#6fa8d6", "#4789c2", "#2b6cb0", "#1c4f8a", "#0f3260")
LOW, HIGH = "#dce8f3", "#123f73"  # ends of a continuous scale

FULL_IN, HALF_IN = 11.0, 5.4  # widths of a plot over the whole page and over half of it
NARROW_IN = 4.6  # of one over the whole page on a phone, where that of 11 inches could not be read
_PNG_DPI = 140

_OTHER_FONTS = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans JP", "Noto Sans SC", "WenQuanYi Zen Hei", "Hiragino Sans"),
    *("Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "PingFang SC", "IPAGothic", "Droid Sans Fallback"),
    *("Noto Sans Arabic", "Noto Naskh Arabic", "Noto Sans Hebrew", "Noto Sans Devanagari", "Noto Sans Thai"),
    *("Noto Sans", "Noto Emoji", "Segoe UI Emoji", "Symbola", "Arial Unicode MS", "Unifont"),
)

_RC: Any = {  # its keys are matplotlib's own, checked when they are set
    "font.family": "DejaVu Sans",  # comes with matplotlib, and is wider than what a page shows instead
    "font.size": 8.5,
    "text.color": INK,
    "text.parse_math": False,  # names hold dollars; no text of ours is a formula
    "axes.labelcolor": INK,
    "axes.labelsize": 8.5,
    "axes.titlesize": 8.5,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.minor.visible": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handletextpad": 0.4,
    "legend.columnspacing": 1.2,
    "svg.fonttype": "none",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One picture of a report.

    Attributes:
        name: Of the file, without its ending; also the prefix of all ids in the SVG.
        title: What the plot shows.
        caption: What to see in it, and what it does not say.
        svg: For a page: without a width of its own and without any address; empty where ``missing`` is set.
        png: The same picture as a PNG file.
        wide: Whether it takes the page's whole width.
        narrow: The SVG of a wide plot for a phone.
        marks: By id of a group in the SVG the trial of each of its marks, in order.
        missing: Why there is nothing to show.
    """

    name: str
    title: str
    caption: str = ""
    svg: str = ""
    png: bytes = b""
    wide: bool = False
    narrow: str = ""
    marks: Mapping[str, Sequence[int]] = field(default_factory=dict)
    missing: str = ""

    def _repr_png_(self) -> bytes | None:  # for notebooks
        return self.png or None


@contextmanager
def plot_style(name: str) -> Iterator[None]:
    """Within it figures look as they should; ids in an SVG depend on the name alone."""
    fonts = [_RC["font.family"], *_other_fonts()]
    with matplotlib.rc_context({**_RC, "font.family": fonts, "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a box says as much
        yield


def name_at(name: str, width_in: float) -> str:
    """The name of a plot over the whole page in one of its two widths: ids on a page are unique."""
    return f"{name}-narrow" if width_in == NARROW_IN else name


@cache
def _other_fonts() -> tuple[str, ...]:
    """Fonts of this machine for scripts that matplotlib's own font lacks, for the names of classes."""
    from matplotlib.font_manager import fontManager

    here = set(fontManager.get_font_names())
    return tuple(name for name in _OTHER_FONTS if name in here)


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty figure, in inches; call it within ``plot_style``."""
    figure = Figure(figsize=(width_in, height_in))
    FigureCanvasAgg(figure)
    return figure


def add_axes(
    figure: Figure, *, left: float = 0.6, right: float = 0.15, top: float = 0.15, bottom: float = 0.5, **options: Any
) -> Axes:
    """Axes with margins in inches: no layout engine, which would cost more than the drawing."""
    width, height = figure.get_size_inches()
    box = (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    return figure.add_axes(box, **options)


def legend_above(axes: Axes, *, columns: int = 6, **options: Any) -> None:
    """A legend in one line above the axes, which need a ``top`` margin of 0.35 inches for it."""
    legend = axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=columns, borderaxespad=0.1, **options)
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1.0)


def name_rows(axes: Axes, names: Sequence[str], **options: Any) -> None:
    """Names the rows of a plot with bars or points, and shows no more of their axis."""
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0, **options)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def note(axes: Axes, text: str, at: tuple[float, float], *, shift: tuple[float, float], **options: Any) -> Annotation:
    """A text beside a place of the axes, ``shift`` points away from it."""
    return axes.annotate(text, at, xytext=shift, textcoords="offset points", **options)


def finish(figure: Figure, plot: Plot, caption: str, marks: Mapping[str, Sequence[int]] | None = None) -> Plot:
    """The plot with its pictures; call it within ``plot_style``."""
    svg = io.StringIO()
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return replace(
        plot,
        caption=caption,
        svg=for_page(svg.getvalue(), plot.name),
        png=b"" if figure.get_figwidth() == NARROW_IN else _png(figure),
        marks={f"{plot.name}-{group}": trials for group, trials in (marks or {}).items()},
    )


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_PNG_DPI, pil_kwargs={"compress_level": 1})  # a fifth larger, much sooner
    return file.getvalue()


def for_page(svg: str, name: str) -> str:
    """An SVG file as an element of a page: smaller, without addresses, its ids prefixed with ``name``."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*|<style.*?</style>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(?:xmlns(?::xlink)?|version|width|height)="[^"]*"', _keep_inside, svg)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r"font-family: [^;\"]*; ", "", svg)  # the page sets the font; sizes stay
    svg = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\d+\.\d\d)\d+", r"\1", tag[0]), svg)  # not in texts
    label = f'<svg role="img" aria-label="{name}" class="plot"'
    return re.sub(r"\n\s*", "\n", svg.replace("<svg", label, 1)).strip()


def _keep_inside(match: re.Match[str]) -> str:
    """Width and height matter on anything but the outermost element, which comes first."""
    return "" if match.start() < 400 or "xmlns" in match[0] else match[0]
