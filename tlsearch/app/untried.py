"""What a search will leave out, said before it is spent."""

from __future__ import annotations

from tlsearch.config import SpaceFile
from tlsearch.space import Space


def untried_backbones(file: SpaceFile, space: Space) -> str:
    """A warning where there are fewer trials than it takes to try each backbone once; empty where there are enough."""
    search, num = file.search, len(space.backbones())
    if search.sampler == "fixed":
        return ""
    points = space.starting_points(search.start_with)[: search.trials]
    tried = {space.to_config(point).backbone for point in points}
    missing = num - len(tried) - (search.trials - len(points))
    if missing <= 0:
        return ""
    verb = "is" if missing == 1 else "are"
    trials = f"{search.trials} trial" + ("s" if search.trials != 1 else "")
    return (
        f"{num} backbones, {trials}: {missing} {verb} never tried; "
        f"list fewer backbones, or set search.trials to {search.trials + missing} or more"
    )
