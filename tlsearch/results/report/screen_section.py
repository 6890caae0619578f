"""The report's table of the screened backbones: what one pass over the images said of each, and what trials reached."""

from __future__ import annotations

from tlsearch.core.types import ProbedBackbone, Screen
from tlsearch.results.leaderboard.screen_notes import (
    agreement,
    agreement_sentence,
    best_values,
    by_size,
    screen_sentences,
)
from tlsearch.results.report.html import Cell, Row, paragraph, section, table
from tlsearch.results.report.plots.view import View
from tlsearch.results.stats.intervals import wilson_interval

_SHOWN = 15
_HEADS = ("backbone", "parameters", "probe accuracy", "95 %", "rank", "rank by size", "kept", "best trial")


def screen_section(view: View) -> str:
    """One row for each backbone, the best probe first; empty where nothing was screened."""
    screen = view.facts.screen
    if screen is None:
        return ""
    best = best_values(view.record)
    sizes = {name: place for place, name in enumerate(by_size(screen.ranked), start=1)}
    rows = [
        Row(cells=_cells(screen, one, place, sizes[one.backbone], best.get(one.backbone)))
        for place, one in enumerate(screen.ranked, start=1)
    ]
    said = [paragraph(_capital(sentence)) for sentence in screen_sentences(screen)]
    later = agreement_sentence(agreement(screen, best, view.record.objective))
    return section(
        "screen",
        "Screen of the backbones",
        *said,
        table(_HEADS, rows, numeric=_HEADS[1:6], shown=_SHOWN),
        paragraph(_capital(later), note=True) if later else "",
    )


def _cells(screen: Screen, one: ProbedBackbone, place: int, size_place: int, best: float | None) -> list[Cell | str]:
    reason = screen.reasons.get(one.backbone, "")
    kept = "kept" if one.backbone in screen.kept else "pruned"
    cells: list[Cell | str] = [one.backbone, Cell(text=f"{one.parameters / 1e6:.1f} M", value=one.parameters)]
    if one.accuracy is None:
        cells += ["–", "–", "–"]
    else:
        interval = wilson_interval(one.accuracy, one.num_val)
        cells.append(Cell(text=f"{one.accuracy:.4f}", value=one.accuracy))
        cells.append(Cell(text=f"{interval.low:.3f} to {interval.high:.3f}", value=interval.low))
        cells.append(Cell(text=str(place), value=place))
    cells.append(Cell(text=str(size_place), value=size_place) if one.parameters else "–")
    cells.append(Cell(text=f"{kept}: {reason}" if reason else kept, wrap=True))
    cells.append("–" if best is None else Cell(text=f"{best:.4f}", value=best))
    return cells


def _capital(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
