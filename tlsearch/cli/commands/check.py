"""``check``: what can be known before a trial is spent."""

from __future__ import annotations

from typing import Annotated

import typer

from tlsearch.cli.root import Data, File, Json, Set, app
from tlsearch.cli.session import EXIT_USER, err, out, print_json, told_errors


@app.command()
def check(
    file: File,
    data: Data = None,
    set_: Set = None,
    no_model: Annotated[bool, typer.Option("--no-model", help="Check the file and the data only.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Also train one real batch of each backbone.")] = False,
    json: Json = False,
) -> None:
    """Check a space file, its images, weights and backbones, and list every error at once."""
    if no_model and dry_run:
        raise typer.BadParameter("a dry run needs the models", param_hint="--no-model")
    with told_errors(as_json=json):
        from tlsearch.app.checks.check_file import check_file
        from tlsearch.cli.tables.data_tables import backbone_table, data_lines, data_table

        report = check_file(
            file, overrides=tuple(set_ or ()), data_path=data, with_model=not no_model, with_batch=dry_run
        )
    if json:
        print_json(report.as_json())
    else:
        if report.data:
            out.print(data_table(report.data))
            for line in data_lines(report.data):
                out.print(line, markup=False, highlight=False, soft_wrap=True)
        for line in report.validation.lines() if report.validation else ():
            out.print(line, markup=False, highlight=False, soft_wrap=True)
        if report.defaults:
            fitted = ", ".join(f"{name} {value}" for name, value in report.defaults.items())
            out.print(f"defaults for these data: {fitted}", markup=False, highlight=False, soft_wrap=True)
        for backbone in report.backbones:
            out.print(backbone_table(backbone))
        for warning in report.warnings:
            err.print(f"warning: {warning}", markup=False, soft_wrap=True)
        for fault in report.faults:
            err.print(str(fault), markup=False, soft_wrap=True)
        count = len(report.faults)
        out.print("no fault found" if report.ok else f"{count} fault{'s' if count != 1 else ''}")
    raise typer.Exit(0 if report.ok else EXIT_USER)
