"""Prints the answer of a cluster's head about a search that was submitted, as if the command had run here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlsearch.cli.session import err, out, print_json
from tlsearch.core.codec import parse_json

if TYPE_CHECKING:
    from tlsearch.app.cluster.relay import Answer
    from tlsearch.app.cluster.submit import Submitted

Cluster = Annotated[
    str | None, typer.Option("--address", help="Ask this cluster about the search: http://HEAD:8265, its dashboard.")
]


def flags(**given: Any) -> list[str]:
    """Options as they are written on a command line; options that are None, False or empty are left out."""
    parts: list[str] = []
    for name, value in given.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            parts.append(option)
        elif value is not None and value is not False:
            for one in value if isinstance(value, (list, tuple)) else [value]:
                parts += [option, str(one)]
    return parts


def relay(
    submitted: Submitted, command: str, options: Sequence[str], *, as_json: bool, timeout_s: float = 0.0
) -> Answer:
    """Runs the command on the head and prints its answer; leaves with its exit code where that is not 0.

    Args:
        options: Of the command, without ID, ``--storage`` and ``--json``.
        timeout_s: How long the command itself may take beyond the usual.
    """
    from tlsearch.app.cluster.relay import ask

    arguments = [command, submitted.search_id, "--storage", submitted.storage, *options]
    answer = ask(submitted, [*arguments, "--json"] if as_json else arguments, timeout_s=180.0 + timeout_s)
    job = f"job {submitted.job_id} is {answer.job.status}" if answer.job else f"job {submitted.job_id} is not known"
    err.print(f"{job}; dashboard: {submitted.address}", markup=False, soft_wrap=True)
    if as_json:
        _print_json(answer)
    else:
        out.print(answer.stdout, end="", markup=False, soft_wrap=True)
    err.print(answer.stderr, end="", markup=False, soft_wrap=True)
    if answer.code:
        raise typer.Exit(answer.code)
    return answer


def _print_json(answer: Answer) -> None:
    """The head's document; ``status`` gets the job beside it."""
    try:
        content = parse_json(answer.stdout, "the cluster's answer", dict)
    except ValueError:
        content = {"ok": False, "error": answer.stderr.strip(), "exit_code": answer.code}
    if "running_trials" in content:
        content["job"] = asdict(answer.job) if answer.job else None
    print_json(content)
