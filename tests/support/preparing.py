"""Searches made ready as the commands do it, and let go at once: what they wrote is looked at, or driven in a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from space_files import load_space_file

from tlsearch.app.catalog.catalog import SearchEntry, register
from tlsearch.app.production import confirm
from tlsearch.app.searches import prepare as preparation
from tlsearch.app.searches import resume_changed, run_or_resume
from tlsearch.search import holding


def stub_entry(root: Path, resolved: str) -> SearchEntry:
    """A search ``one`` in the catalogue, with its space file and nothing else."""
    root.mkdir(exist_ok=True)
    (root / "resolved.yaml").write_text(resolved)
    entry = SearchEntry(
        search_id="one",
        experiment="stub",
        directory=str(root),
        source="space.yaml",
        tracking_uri="sqlite:///x.db",
        metric="val_accuracy",
        created=1.0,
    )
    register(entry)
    return entry


def prepare(options: preparation.RunOptions) -> preparation.Prepared:
    """As ``run``."""
    with preparation.prepare(options) as prepared:
        return prepared


@contextmanager
def starting(options: preparation.RunOptions) -> Iterator[preparation.Prepared]:
    """As ``run --or-resume``, held while the body runs."""
    file = load_space_file(options.file, options.overrides, options.data_path)
    with run_or_resume.begun(file, name=options.name, data_path=options.data_path) as earlier:
        if earlier is not None:
            yield preparation.prepare_resume(earlier.entry, lock=earlier.lock, address=options.address)
            return
        with preparation.prepare(options) as prepared:
            yield prepared


def prepare_or_resume(options: preparation.RunOptions) -> preparation.Prepared:
    """As ``run --or-resume``."""
    with starting(options) as prepared:
        return prepared


def prepare_resume(entry: SearchEntry, **options: Any) -> preparation.Prepared:
    """As ``resume``."""
    with holding(entry.path, "resume") as lock:
        return preparation.prepare_resume(entry, lock=lock, **options)


def prepare_changed(entry: SearchEntry, **options: Any) -> resume_changed.ChangedSearch:
    """As ``resume --changed``."""
    with holding(entry.path, "resume") as lock, ExitStack() as connection:
        return resume_changed.prepare_changed(entry, lock=lock, connection=connection, **options)


def prepare_confirm(entry: SearchEntry, **options: Any) -> confirm.PreparedConfirm:
    """As ``confirm``."""
    with confirm.prepare_confirm(entry, **options) as prepared:
        return prepared
