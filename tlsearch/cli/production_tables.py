"""Tables for people: repeated configurations, test evidence, exported formats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table


def confirm_table(result: Mapping[str, Any]) -> Table:
    """The candidates of ``confirm`` by their mean over the seeds."""
    table = Table(title=f"{result['search_id']}: {result['metric']} over {result['seeds']} seeds")
    for title in ("rank", "trial", "searched", "mean", "95 % interval", "parameters", "s/epoch"):
        table.add_column(title, justify="right", no_wrap=True)
    for one in result["candidates"]:
        interval = "-" if one["interval"] is None else "{:.4f} .. {:.4f}".format(*one["interval"])
        table.add_row(
            str(one["rank"]),
            str(one["trial"]),
            f"{one['first_value']:.4f}",
            f"{one['mean']:.4f}",
            interval,
            f"{one['parameters']:,}",
            f"{one['epoch_seconds']:.1f}",
            style="bold" if one["trial"] == result["recommended"] else None,
        )
    return table
