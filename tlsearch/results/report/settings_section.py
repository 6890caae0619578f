"""The report's account of how the search was set up, and its best trial as YAML to copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from tlsearch.results.report.html import Cell, Row, grid, paragraph, section, table

_SHOWN_DIGEST = 16


@dataclass(frozen=True, kw_only=True)
class WeightsUsed:
    """What a backbone started from.

    Attributes:
        digest: sha256 (hex) of its tensors; empty where no model of the backbone is kept that says it.
    """

    backbone: str
    weights_id: str
    digest: str = ""


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How a search was set up.

    Attributes:
        resolved: The space file with every default, as YAML without passwords.
        weights: One for each backbone that was tried.
        environment: Versions by package, of the search's last start.
        best_entry: The best trial as an entry of ``search.start_with``; empty where there is none.
        best_space: The best trial as a ``space`` of its own, with its ``weights`` where the file names any.
    """

    resolved: str = ""
    weights: Sequence[WeightsUsed] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    best_entry: str = ""
    best_space: str = ""


def best_section(trial: int | None, settings: SearchSettings) -> str:
    """The best trial as YAML to copy; empty where there is none."""
    if trial is None or not settings.best_space:
        return ""
    alone, first = _code(settings.best_space), _code(settings.best_entry)
    return section(
        "best",
        f"Trial {trial} to copy",
        grid(
            "<div>"
            + paragraph("In place of the file’s `space` and `weights`, this configuration alone:")
            + f"{alone}</div>",
            "<div>" + paragraph("As the first trial of a search over the same space:") + f"{first}</div>",
        ),
    )


def settings_section(settings: SearchSettings) -> str:
    """Weights, versions, and the whole space file; empty where none of it is known."""
    parts = []
    if settings.weights:
        rows = [
            Row(cells=[one.backbone, Cell(text=one.weights_id, wrap=True), one.digest[:_SHOWN_DIGEST] or "–"])
            for one in settings.weights
        ]
        heads = ["backbone", "weights", "sha256 of the tensors"]
        parts += ["<h3>Weights</h3>", table(heads, rows)]
        if any(not one.digest for one in settings.weights):
            parts.append(paragraph("– : no model of this backbone is kept, which would say it.", note=True))
    if settings.environment:
        rows = [Row(cells=[name, Cell(text=text, wrap=True)]) for name, text in settings.environment.items()]
        parts += ['<h3 class="spaced">Versions</h3>', table(["", "version"], rows)]
    if settings.resolved:
        whole = "<summary>The space file, every default written out</summary>"
        parts.append(f'<details class="spaced">{whole}{_code(settings.resolved)}</details>')
    return section("settings", "Settings", *parts) if parts else ""


def _code(text: str) -> str:
    return f'<pre class="copy">{escape(text.rstrip())}</pre>'
