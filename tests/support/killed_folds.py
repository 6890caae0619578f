"""A search with folds in a process of its own, to be killed: ``killed_folds.py ROOT``; a second call goes on with it.

Every epoch writes a running checkpoint, so that ``after_checkpoint`` is in the middle of a fold.
"""

from __future__ import annotations

import sys
from pathlib import Path

from search_doubles import drive
from small_search import SPACE, small_search

from tlsearch.app.catalog.catalog import read_entry
from tlsearch.app.catalog.stored import stored_file
from tlsearch.search import SearchPlan, holding
from tlsearch.trial import finetuning, fold_training, open_running

NAME, FOLDS = "small", 3


def folded(folds: int) -> str:
    """The space of `small_search`, with folds."""
    return SPACE.format(more="").replace("max_epochs: 2", f"max_epochs: 2\n  folds: {folds}")


def main(root: Path) -> None:
    """Begins the search, or goes on with the one that was killed."""
    finetuning.RUNNING_INTERVAL_S = fold_training.RUNNING_INTERVAL_S = 0.0
    if not (root / "tlsearch_runs" / NAME).exists():
        small_search(root, name=NAME, space=folded(FOLDS))
        return
    entry = read_entry(root / "tlsearch_runs" / NAME)
    assert entry is not None
    file, space = stored_file(entry, "")
    plan = SearchPlan(
        search_id=entry.search_id,
        experiment=entry.experiment,
        directory=entry.directory,
        space=space,
        setup=file.trial_setup(),
        search=file.search,
        resources=file.resources,
    )
    with holding(entry.path, "resume") as lock:
        assert drive(plan, factory=open_running, lock=lock) == "finished"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
