"""``submit`` and ``doctor``: a cluster, seen from this machine; and what its head answers to other commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlsearch.cli.root import Data, File, Json, Set, TimeBudget, Trials, app, replacements
from tlsearch.cli.session import EXIT_FAILED, err, out, print_json, shown_errors
from tlsearch.core.codec import parse_json
from tlsearch.core.text import command
from tlsearch.display.interrupts import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from tlsearch.app.cluster.relay import Answer
    from tlsearch.app.cluster.submit import Submitted

Cluster = Annotated[
    str | None, typer.Option("--address", help="Ask the cluster with this dashboard: http://HEAD:8265.")
]


@app.command()
def submit(
    file: File,
    address: Annotated[str, typer.Option("--address", help="Dashboard of the cluster, such as http://HEAD:8265.")],
    data: Annotated[
        str | None, typer.Option("--data", help="Folder or table of the images on the cluster. Replaces data.path.")
    ] = None,
    set_: Set = None,
    trials: Trials = None,
    time_budget: TimeBudget = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the search. An existing one is followed or resumed.")
    ] = None,
    ship: Annotated[bool, typer.Option(help="Copy this machine's tlsearch to the cluster.")] = True,
    wait: Annotated[bool, typer.Option(help="Show what the search prints until it ends.")] = True,
    json: Json = False,
) -> None:
    """Start a search on a Ray cluster, from any machine.

    The search goes on while this machine sleeps.
    """
    overrides = replacements(set_, trials, time_budget)
    with shown_errors(as_json=json):
        from tlsearch.app.cluster.submit import SubmitOptions, submit_file
        from tlsearch.search.cluster.job_submission import follow
        from tlsearch.search.cluster.jobs import Jobs

        options = SubmitOptions(file=file, address=address, overrides=overrides, data_path=data, name=name, ship=ship)
        submitted = submit_file(options)
        answer = {"search_id": submitted.search_id, "job_id": submitted.job_id, "address": submitted.address}
        console = err if json else out
        verb = "submitted as" if submitted.new else "runs already as"
        console.print(f"search {submitted.search_id} {verb} job {submitted.job_id}")
        if not wait:
            if json:
                print_json({**answer, "status": "SUBMITTED" if submitted.new else "RUNNING"})
            return
        again = command("submit", str(file), "--address", address, "--name", submitted.search_id)
        try:
            state = follow(
                Jobs(submitted.address),
                submitted.job_id,
                lambda text: console.print(text, end=""),
                note=lambda text: err.print(text),
            )
        except KeyboardInterrupt:
            err.print(f"no longer followed; the search goes on. Follow it again: {again}")
            raise typer.Exit(EXIT_INTERRUPTED) from None
    status = state.status if state is not None else "UNKNOWN"
    if json:
        print_json({**answer, "status": status})
    if status != "SUCCEEDED":
        why = state.message if state is not None else "the cluster no longer knows it: its head was started again"
        err.print(f"job {submitted.job_id}: {status}: {why}")
        err.print(f"what was done is in {submitted.storage}; go on with: {again}")
        raise typer.Exit(EXIT_FAILED)


@app.command()
def doctor(
    file: Annotated[
        Path | None, typer.Argument(help="A space file, whose storage, images and MLflow store are checked too.")
    ] = None,
    address: Annotated[
        str, typer.Option("--address", help="What to check: local, auto, HOST:PORT, or a cluster's http://HEAD:8265.")
    ] = "local",
    data: Data = None,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Check what could stop a search, here or on a cluster.

    It looks at versions, devices, disks, MLflow, Ray and the nodes.
    """
    with shown_errors(as_json=json):
        from tlsearch.doctor.environment import diagnose

        seen = diagnose(file, overrides=set_ or (), data_path=data, address=address)
    if json:
        print_json(seen.as_json())
    else:
        for finding in seen.findings:
            out.print(f"{finding.status:4} {finding.name}: {finding.text}")
            if finding.advice:
                out.print(f"     -> {finding.advice}")
    raise typer.Exit(0 if seen.ok else EXIT_FAILED)


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
    err.print(f"{job}; dashboard: {submitted.address}")
    if as_json:
        _print_json(answer)
    else:
        out.print(answer.stdout, end="")
    err.print(answer.stderr, end="")
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
