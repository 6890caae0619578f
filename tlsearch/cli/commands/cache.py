"""``cache``: what this machine's stores hold, and clearing them."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from tlsearch.cli.root import Json, app
from tlsearch.cli.session import out, print_json, shown_errors
from tlsearch.core.text import one_of, plural


class Store(str, Enum):
    """What ``--only`` may say."""

    images = "images"
    features = "features"
    solutions = "solutions"
    weights = "weights"
    data = "data"
    datasets = "datasets"
    huggingface = "huggingface"


_ONLY = f"Only one of: {one_of([store.value for store in Store])}. May be repeated."


@app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove the entries that no trial uses now.")] = False,
    only: Annotated[list[Store] | None, typer.Option("--only", metavar="CACHE", help=_ONLY)] = None,
    json: Json = False,
) -> None:
    """List or clear this machine's caches.

    They hold decoded images, features, solutions (of probes and solved heads), and what was fetched: weights, images of
    a bucket (data), sets of torchvision (datasets) and of the Hugging Face Hub (huggingface).
    """
    with shown_errors(as_json=json):
        from tlsearch.app.views.cache_contents import ALL_STORES, cache_entries, cache_json, clear_cache, searches_total
        from tlsearch.cli.tables.data_tables import cache_table

        stores = [store.value for store in only] if only else list(ALL_STORES)
        cleared = clear_cache(stores) if clear else None
        entries = cache_entries(stores)
        if json:
            print_json(cache_json(entries, cleared))
        elif cleared is not None:
            freed = sum(entry.num_bytes for entry in cleared.removed)
            out.print(f"removed {plural(len(cleared.removed), 'entry', 'entries')}, {freed / 1e6:,.1f} MB")
            if cleared.in_use:
                out.print(f"left {len(cleared.in_use)} that trials are using")
        else:
            directory = cache_json(entries)["directory"]
            out.print(f"{directory}: {plural(len(entries), 'entry', 'entries')}")
            if entries:
                out.print(cache_table(entries))
            total = searches_total()
            if total["entries"]:
                size = f"{plural(total['entries'], 'search', 'searches')}: {total['num_bytes'] / 1e6:,.1f} MB"
                out.print(f"outside of the cache: {size} (`tlsearch list`, `tlsearch remove ID`)")
