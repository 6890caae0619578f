"""Tables for people: repeated configurations, test evidence, exported formats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tlsearch.cli.console import Table
from tlsearch.core.text import plural


def confirm_table(result: Mapping[str, Any]) -> Table:
    """The candidates of ``confirm`` by their mean over the seeds."""
    table = Table(title=f"{result['search_id']}: {result['metric']} over {plural(result['seeds'], 'seed')}")
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


def evidence_table(result: Mapping[str, Any]) -> Table:
    """The evidence of ``promote``."""
    table = Table(title=f"{result['model']} version {result['version']}", show_header=False)
    table.add_row(f"{result['metric']} on validation", "-" if result["value"] is None else f"{result['value']:.4f}")
    test = result["test"]
    if test is None:
        table.add_row("test", "not looked at")
        return table
    low, high = test["accuracy_interval"]
    table.add_row("test accuracy", f"{test['accuracy']:.4f} (95 % interval {low:.4f} .. {high:.4f})")
    table.add_row("test images", str(test["num_images"]))
    table.add_row("balanced accuracy", f"{test['balanced_accuracy']:.4f}")
    table.add_row("macro F1", f"{test['macro_f1']:.4f}")
    one = test["calibration"]
    table.add_row("calibration error", f"{one['ece_before']:.4f}, scaled {one['ece_after']:.4f}")
    return table


def export_table(result: Mapping[str, Any]) -> Table:
    """How long the formats take for one image."""
    table = Table(caption=f"on {result['latency_on']}", min_width=40)
    table.add_column("format")
    table.add_column("milliseconds an image", justify="right")
    for one in result["latency"]:
        table.add_row(one["format"], f"{one['ms']:.1f}")
    return table
