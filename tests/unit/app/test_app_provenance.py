"""What is kept of a search beside its study."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.app.catalog.provenance import keep_evidence
from tlsearch.core.errors import StorageError
from tlsearch.data import load_index
from tlsearch.space import load


def test_a_folder_that_cannot_be_written_pauses_the_search(ended_search: SearchEntry, tmp_path: Path) -> None:
    index = load_index(load(ended_search.path / "resolved.yaml")[0].data)
    gone = replace(ended_search, directory=str(tmp_path / "gone"))
    with pytest.raises(StorageError, match=r"gone cannot be written: No such file.*go on with `tlsearch resume`"):
        keep_evidence(gone, index)
