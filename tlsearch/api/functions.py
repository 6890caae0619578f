"""Searches from Python: run one, go on with one, open one.

    import tlsearch

    search = tlsearch.run("space.yaml", trials=16)
    search.best.params
    search.model().predict(["a.jpg"])

Errors are those of the command line (``tlsearch.core.errors``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlsearch.api.search import Search
from tlsearch.api.spaces import LoadedSpace, SpaceSource, load_space, with_changes
from tlsearch.app.catalog.catalog import find
from tlsearch.app.checks.outputs import require_folders
from tlsearch.display.shown_search import execute_shown, show_progress

if TYPE_CHECKING:
    from tlsearch.app.checks.planning import PlanReport


def run(
    space: LoadedSpace | SpaceSource,
    *,
    trials: int | None = None,
    time_budget: str | None = None,
    name: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    address: str = "local",
    progress: bool = True,
) -> Search:
    """Runs a search until its budget ends.

    Ctrl-C (in a notebook: interrupt the kernel) ends it within seconds; it is then ``interrupted``: `resume` goes on.

    Args:
        space: What `load_space` gives, or takes: a path or a dict.
        trials: In place of ``search.trials``.
        time_budget: In place of ``search.time_budget``: ``30m``, ``2h``.
        name: The search's id; made from the time if left out.
        overrides: Other values by dotted key: ``{"search.max_epochs": 5}``.
        address: ``local``, or the address of a Ray cluster.
        progress: Show a live table.

    Raises:
        SpaceError, DataError, WeightsError, StorageError: What is wrong with the space, the images, the weights or the
            storage; nothing has run.
        SearchStopped: One error came too often in a row, or images are damaged.
    """
    from tlsearch.app.searches.prepare import RunOptions, prepare
    from tlsearch.search import starting_ray

    given = {"search.trials": trials, "search.time_budget": time_budget}
    changes = {**(overrides or {}), **{key: value for key, value in given.items() if value is not None}}
    loaded = with_changes(space, changes)
    require_folders()
    with ExitStack() as stack:
        with loaded.written() as file:  # the search has its own copy once it is prepared
            options = RunOptions(
                file=file, overrides=loaded.overrides, data_path=loaded.data, address=address, name=name
            )
            beside = partial(stack.enter_context, starting_ray(address))
            prepared = stack.enter_context(prepare(options, beside=beside))
        return Search(execute_shown(prepared, show_progress(prepared) if progress else None).entry)


def resume(
    search: Search | str | None = None,
    *,
    trials: int | str | None = None,
    data: str | Path | None = None,
    storage: str | Path | None = None,
    address: str = "local",
    progress: bool = True,
) -> Search:
    """Goes on with a search that was interrupted, or extends one that has finished.

    Args:
        search: The search, its id or its folder; the latest if left out.
        trials: The new total, or ``"+8"`` for more.
        data: Where the images are now, if they have moved and the space file does not say so; they must be the same.
        storage: Where to look for it instead of the catalogue.
        address: ``local``, or the address of a Ray cluster.
        progress: Show a live table.
    """
    from tlsearch.app.searches.moved_data import follow_data
    from tlsearch.app.searches.prepare import prepare_resume
    from tlsearch.app.searches.run_or_resume import nothing_left
    from tlsearch.search import holding

    entry = search.entry if isinstance(search, Search) else open_search(search, storage=storage).entry
    total = None if trials is None else str(trials)
    require_folders()
    with holding(entry.path, "resume") as lock:
        entry = follow_data(entry, data_path=None if data is None else Path(data))
        if nothing_left(entry, trials=total, stored=False):
            return Search(entry)
        prepared = prepare_resume(entry, lock=lock, trials=total, address=address)
        return Search(execute_shown(prepared, show_progress(prepared) if progress else None).entry)


def open_search(search: str | Path | None = None, *, storage: str | Path | None = None) -> Search:
    """A search that exists.

    Args:
        search: Its id or its folder; the latest if left out.
        storage: Where to look for it instead of the catalogue.

    Raises:
        StorageError: There is none.
    """
    return Search(find(None if search is None else str(search), None if storage is None else Path(storage)))


def init_space(
    data: str | Path,
    *,
    minutes: float = 10.0,
    domain: str = "",
    weights: str | Path | Sequence[str | Path] = (),
    output: str | Path = "space.yaml",
    force: bool = False,
) -> LoadedSpace:
    """Writes a space file that fits the images and this machine, with the reason of each choice beside it.

    Args:
        data: A folder of images, or a table of paths and labels.
        minutes: For search, confirmation and promotion together.
        domain: What the images are: ``photos``, ``drawings``, ``medical``, ...; measured or left open if left out.
        weights: A file with pretrained weights, a folder of such, or several of these.
        output: The file to write.
        force: Replace a file that is there already.

    Returns:
        The space of that file, ready for `run`.

    Raises:
        UserError: The domain is not known, or ``weights`` names no weights.
        DataError: The images cannot be used.
        StorageError: The file is there already, or cannot be written.
    """
    from tlsearch.app.init.write_space import InitOptions
    from tlsearch.app.init.write_space import init_space as write_space

    options = InitOptions(
        data=str(data),
        minutes=minutes,
        domain=domain,
        weights=[Path(one) for one in ([weights] if isinstance(weights, str | Path) else weights)],
        output=Path(output),
        force=force,
    )
    return load_space(write_space(options).path)


def plan(space: LoadedSpace | SpaceSource, *, overrides: Mapping[str, Any] | None = None) -> PlanReport:
    """Forecasts what a search will take on this machine; writes nothing and starts no Ray.

    Args:
        space: What `load_space` gives, or takes.
        overrides: Other values by dotted key: ``{"search.trials": 24}``.

    Returns:
        The forecast: ``with_cache.wall_s`` has the 10th percentile, the median and the 90th percentile in seconds,
        ``savings`` what would make it shorter, ``as_json()`` everything.

    Raises:
        SpaceError, DataError: What is wrong with the space or the images.
        UserError: This machine has no room for a trial.
    """
    from tlsearch.app.checks.planning import plan_file

    loaded = with_changes(space, overrides or {})
    with loaded.written() as file:
        return plan_file(file, overrides=loaded.overrides, data_path=loaded.data)
