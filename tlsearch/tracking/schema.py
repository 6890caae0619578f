"""Whether the MLflow that is installed can use a database: seen in the database itself, before MLflow opens it.

MLflow compares when it opens the database, which is when the first trials run already; and one that lacks a table it
changes without asking, after which older versions cannot open it any more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

Fault = tuple[str, str]  # what is wrong, and what to do
Rows = Sequence[Sequence[object]]

_REVISION = re.compile(r"^(revision|down_revision)\b[^=\n]*=\s*[\"'](\w+)[\"']", re.MULTILINE)
_OWN_TABLE, _VERSION_TABLE = "experiments", "alembic_version"


def database_fault(
    tables: Sequence[str], query: Callable[[str, str], Rows], *, shown: str, experiment: str = ""
) -> Fault | None:
    """Why a search cannot be recorded in a database; None where it can, or where there are no tables yet.

    Args:
        tables: Names of all tables.
        query: Runs SQL that may name the parameter ``:name``, given as its second argument.
        shown: The database, for messages.
        experiment: The search's; empty leaves out whether it was deleted.
    """
    if not tables:
        return None
    if _OWN_TABLE not in tables or _VERSION_TABLE not in tables:
        names = ", ".join(sorted(tables)[:3])
        return f"{shown} is a database of another program (tables {names})", "name another file as tracking.uri"
    found = [str(row[0]) for row in query(f"SELECT version_num FROM {_VERSION_TABLE}", "")]
    fault = _version_fault(found[0] if found else "", shown)
    if fault is not None or not experiment:
        return fault
    deleted = query(
        f"SELECT experiment_id FROM {_OWN_TABLE} WHERE name = :name AND lifecycle_stage <> 'active'", experiment
    )
    return deleted_fault(experiment, str(deleted[0][0]), shown) if deleted else None


def deleted_fault(experiment: str, experiment_id: str, shown: str) -> Fault:
    """What an experiment that was deleted and not yet removed means: its name cannot be used."""
    return (
        f"the MLflow experiment of a search must be active; {experiment!r} (id {experiment_id}) was deleted in {shown}",
        f"restore it with `mlflow experiments restore --experiment-id {experiment_id}`, or choose another `name`",
    )


def _version_fault(found: str, shown: str) -> Fault | None:
    newest, known = _revisions()
    if not newest or found == newest:
        return None
    installed = f"MLflow {version('mlflow')}, which is installed"
    if found in known:
        return (
            f"{shown} was made by an older MLflow (its tables are of version {found}; {installed}, needs {newest})",
            "back it up, then run `mlflow db upgrade` with its URI (older versions cannot open it afterwards), "
            "or name another database as tracking.uri",
        )
    return (
        f"{shown} was made by a newer MLflow (its tables are of version {found or 'unknown'}, which {installed}, "
        "does not know)",
        "install the version of MLflow that made it, or name another database as tracking.uri",
    )


@cache
def _revisions() -> tuple[str, frozenset[str]]:
    """The version of the tables that the installed MLflow needs, and all it knows; read without importing it."""
    spec = find_spec("mlflow")
    folder = Path(spec.origin or "").parent / "store" / "db_migrations" / "versions" if spec else Path()
    known: set[str] = set()
    older: set[str] = set()
    for file in folder.glob("*.py"):
        for name, revision in _REVISION.findall(file.read_text(encoding="utf-8")):
            (known if name == "revision" else older).add(revision)
    newest = known - older
    return (newest.pop() if len(newest) == 1 else ""), frozenset(known)
