"""Where a search's log goes; the command that runs the search sets it up."""

from __future__ import annotations

from contextlib import AbstractContextManager

from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.core.layout import SearchFolder
from tlsearch.search.json_logs import logging_to


def search_log(entry: SearchEntry) -> AbstractContextManager[None]:
    """Writes ``log.jsonl`` in the search's folder while the body runs."""
    return logging_to(SearchFolder(root=entry.path).log, search=entry.search_id)
