"""``run --promote``: what comes after the search, within what is left of its time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer

from tlsearch.cli.session import EXIT_FAILED, EXIT_USER, err, out, print_json
from tlsearch.core.codec import to_plain
from tlsearch.core.text import command, format_s

if TYPE_CHECKING:
    from tlsearch.app.production.within_time import Deadline
    from tlsearch.app.searches.execute import SearchEnd
    from tlsearch.app.searches.prepare import Prepared
    from tlsearch.config import SpaceFile


def check_promotable(settings: SpaceFile) -> None:
    """Refuses what could not be promoted before any time is spent on it.

    Raises:
        DataError: The data have no test split.
    """
    from tlsearch.core.errors import DataError
    from tlsearch.data import load_index

    if "test" not in load_index(settings.data).splits:
        raise DataError(
            "--promote tests the winner on a test split, and the data have none: leave --promote out; after the search "
            "`tlsearch promote --without-test` registers its model untested"
        )


def confirm_and_promote(end: SearchEnd, prepared: Prepared, deadline: Deadline, *, address: str, as_json: bool) -> None:
    """Confirms what fits into the rest of the time, then promotes the winner; says why where it does not."""
    from tlsearch.app.production.confirm import best_candidates
    from tlsearch.app.production.promote import PromoteOptions, promote
    from tlsearch.app.production.within_time import plan_confirm
    from tlsearch.cli.commands.production import print_promoted, run_confirm
    from tlsearch.core.errors import TlsearchError, UserError
    from tlsearch.results import results_json

    console, search_id = err if as_json else out, end.entry.search_id
    num_reports, left_s = prepared.file.search.num_reports, deadline.confirm_s
    candidates = best_candidates(end.record, 3)
    plan = plan_confirm(end.record, candidates, num_reports=num_reports, left_s=left_s)
    reason, confirmed = plan.reason, None
    if not reason:
        confirmed = run_confirm(
            end.entry, top=plan.top, seeds=plan.seeds, address=address, as_json=as_json, limit_s=left_s
        )
        reason = "" if confirmed else "the time was over"
    if reason:
        later = f"; {command('confirm', search_id)} does it" if len(candidates) > 1 else ""
        console.print(f"not confirmed: {reason}{later}")
    document = results_json(end.record, end.run_ids)
    document |= {"confirm": to_plain(confirmed) if confirmed else None, "promotion": None}
    try:
        promoted = promote(end.entry, PromoteOptions())
    except TlsearchError as error:
        if not as_json:
            out.print("not promoted:")
            raise
        print_json({**document, "promotion_error": str(error)})
        raise typer.Exit(EXIT_USER if isinstance(error, UserError) else EXIT_FAILED) from None
    if as_json:
        print_json({**document, "promotion": to_plain(promoted)})
        return
    print_promoted(promoted)
    spent = format_s(time.monotonic() - deadline.began)
    predict = command("predict", promoted.uri, "IMAGES")
    out.print(f"in {spent} from the start. Use it: {predict}")
