"""``check --dry-run``: one real batch of every backbone, before a trial is spent."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tlsearch.config import SpaceFile
from tlsearch.core.errors import Fault, TlsearchError
from tlsearch.core.types import TrialAssignment, TrialConfig
from tlsearch.core.user_folders import scratch_folder
from tlsearch.space import Space

_DEPTHS = (5, 4, 3, 2, 1, 0)


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """One backbone's first batch, at the deepest unfreezing that the space allows."""

    backbone: str
    unfreeze_depth: int
    train_loss: float


def dry_run(file: SpaceFile, space: Space) -> tuple[list[DryRun], list[Fault]]:
    """Takes one batch of each backbone through forward, backward, step and evaluation.

    Returns:
        What worked, and a fault for each backbone that did not.
    """
    from tlsearch.trial import first_batch

    done, faults = [], []
    for backbone in space.backbones():
        config = deepest_config(space, backbone)
        with scratch_folder("dry") as directory:
            setup = file.trial_setup()
            # No trial would ever read what so few images leave behind, so it does not go into the node's cache.
            setup = replace(setup, cache=replace(setup.cache, directory=f"{directory}/cache"))
            assignment = TrialAssignment(
                number=0, seed=file.search.seed, config=config, setup=setup, directory=f"{directory}/trial"
            )
            try:
                batch = first_batch(assignment)
            except TlsearchError as error:
                faults.append(Fault(path=("space", "backbone", backbone), message=str(error)))
                continue
        done.append(DryRun(backbone=backbone, unfreeze_depth=config.unfreeze_depth, train_loss=batch.train_loss))
    return done, faults


def deepest_config(space: Space, backbone: str) -> TrialConfig:
    """The default trial of a backbone, moved to the deepest unfreezing that the space allows."""
    for depth in _DEPTHS:
        try:
            return space.to_config(space.complete({"backbone": backbone, "unfreeze_depth": depth}))
        except ValueError:
            continue  # this depth is outside the space
    raise AssertionError(f"no depth of the space takes {backbone}")
