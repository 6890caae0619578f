"""The description of a search's run: our block of it, beside which a person's own words stay."""

from __future__ import annotations

_BEGIN, _END = "<!-- written by tlsearch -->", "<!-- end of what tlsearch writes -->"


def with_block(note: str, text: str) -> str:
    """A note with our block replaced, or begun where the note is empty; without a block it stays as it is.

    Args:
        note: What the run's description says now; a person may have changed it.
        text: What the block is to say, in Markdown.
    """
    block = f"{_BEGIN}\n{text.strip()}\n{_END}"
    if not note.strip():
        return block
    head, begin, rest = note.partition(_BEGIN)
    _, end, tail = rest.partition(_END)
    return f"{head}{block}{tail}" if begin and end else note


def has_block(note: str) -> bool:
    """Whether a note holds our block."""
    return _BEGIN in note


def best_line(metric: str, value: float, *, trial: int, experiment_id: str, run_id: str | None, model_id: str) -> str:
    """A line on the best trial; its links are those of MLflow's own pages, wherever its server stands."""
    page = f"#/experiments/{experiment_id}"
    name = f"trial {trial}" if run_id is None else f"[trial {trial}]({page}/runs/{run_id})"
    model = f", [its model]({page}/models/{model_id}) is `models:/{model_id}`" if model_id else ""
    return f"**Best: {name}**, `{metric}` {value:.4f}{model}"
