"""The looks at a test split: on record in the search's folder, and at the experiment in MLflow."""

from __future__ import annotations

import time

from tlsearch.app.catalog.catalog import SearchEntry, write_atomically
from tlsearch.results.promotion.test_split import USES, TestSplit, TestUse, read_uses, uses_text
from tlsearch.tracking.stored_search import read_test_uses, write_test_uses


def uses_on_record(entry: SearchEntry, split: TestSplit) -> list[TestUse]:
    """From the search's folder and from MLflow; a use is known by its split and model."""
    here = read_uses(entry.path)
    there = [
        TestUse(**one)  # type: ignore[arg-type]
        for one in read_test_uses(entry.tracking_uri, experiment=entry.experiment, digest=split.digest)
    ]
    known = {(one.digest, one.model) for one in here}
    return [*here, *(one for one in there if (one.digest, one.model) not in known)]


def record_uses(entry: SearchEntry, split: TestSplit, uses: list[TestUse]) -> None:
    """In both places."""
    write_atomically(entry.path / USES, uses_text(uses))
    briefs = [one.brief() for one in uses if one.digest == split.digest]
    write_test_uses(entry.tracking_uri, experiment=entry.experiment, digest=split.digest, uses=briefs)


def when_text(use: TestUse) -> str:
    """When a look was, and for which model, in words."""
    at = time.strftime("%Y-%m-%d %H:%M", time.localtime(use.at))
    return f"on {at} for trial {use.trial} of {use.search_id}"
