"""Kills ``ensemble``, ``soup`` or ``promote --distill`` at five points: what each death left, and what came of it.

``combined_crashes.py ROOT ensemble|soup|distilled`` writes ROOT/outcome.json. A process of its own, since it forks:
imports are paid once, and no thread is alive before a fork.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from promotion_crashes import in_child

POINTS = {
    "ensemble": (
        "member_trained",  # a member that was evicted is trained again
        "ensemble_chosen",
        "ensemble_tensors:1",
        "ensemble_tensors:2",
        "ensemble_model",
    ),
    "soup": (
        "after_checkpoint:2",  # in the middle of the training of an evicted member
        "member_trained:2",  # that member, and a training of the other one with another seed
        "soup_chosen",
        "soup_tensors",  # its tensors are there, no file names them
        "soup_model",
    ),
    "distilled": (
        "soft_targets",
        "after_checkpoint:2",  # in the middle of the student's training
        "student_trained",
        "distilled_chosen",
        "distilled_model",
        "version_made",  # registered, and no alias points to it
    ),
}
NAME = "tried"


def main(root: Path, kind: str) -> None:
    """Works in the folder ``root``."""
    home = root / "home"
    for name in ("STATE", "CACHE"):
        os.environ[f"TLSEARCH_{name}_DIR"] = str(home / name.lower())
    # What a forked child is to use is imported here, once.
    import mlflow.pyfunc
    import mlflow.store.model_registry.sqlalchemy_store
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

    import tlsearch.app.production.promote  # noqa: F401

    home.mkdir()
    assert in_child(lambda: _prepare(home, kind)) == 0
    shutil.copytree(home, root / "before")
    outcome = {}
    for point in ("", *POINTS[kind]):
        shutil.rmtree(home)
        shutil.copytree(root / "before", home)
        killed = in_child(lambda point=point: _make(home, kind, point))  # type: ignore[misc]
        ended = in_child(lambda: _look_and_go_on(home, kind, root / "states.json"))
        assert ended == 0, f"after a death at {point} the same call did not go on"
        left, after = json.loads((root / "states.json").read_text())
        outcome[point] = {"killed": killed, "left": left, "after": after}
    (root / "outcome.json").write_text(json.dumps(outcome, indent=2))


def _prepare(home: Path, kind: str) -> None:
    """A search whose trial 2 was evicted; for a student the search with its ensemble."""
    from small_search import small_search
    from soup_search import soup_search

    entry = soup_search(home, name=NAME) if kind == "soup" else small_search(home, name=NAME)
    if kind == "distilled":
        _make(home, "ensemble")
    else:
        shutil.rmtree(entry.path / "trials" / "2" / "best")


def _make(home: Path, kind: str, crash_at: str = "") -> None:
    """The command; which trials are taken, and that these are better, would be chance in so small a search."""
    from tlsearch.app.catalog.catalog import SearchEntry
    from tlsearch.app.combined import ensemble_costs, make_ensemble, make_soup
    from tlsearch.app.production.promote import PromoteOptions, promote
    from tlsearch.core.metrics import Objective
    from tlsearch.results.combine.combination import Member
    from tlsearch.results.combine.greedy_soup import SoupChoice
    from tlsearch.results.combine.selection import Selected
    from tlsearch.trial import finetuning

    values = {"value": 0.75, "cross_fitted": 0.7, "best_value": 0.7, "best_cross_fitted": 0.65}
    members = (Member(trial=0, count=2), Member(trial=2, count=1))
    found = Selected(members=members, temperatures=(1.5, 1.5), best_trial=0, helps=True, **values)
    soup = SoupChoice(members=(2, 5), best_trial=2, helps=True, **values)  # 5 is a training of the best trial's
    make_ensemble.select_ensemble = lambda *_, **__: found
    make_ensemble.measure_module = lambda *_: 7.0
    make_soup.choose_soup = lambda *_, **__: soup
    ensemble_costs.measure_latency = lambda _: 3.0  # type: ignore[assignment]
    finetuning.RUNNING_INTERVAL_S = 0.0  # a checkpoint at every epoch
    os.environ["TLSEARCH_CRASH_AT"] = crash_at
    if crash_at == "soup_tensors":  # trainings pass the same point, how often depends on their curves
        make_soup._write_average = _dying_at("model_tensors", make_soup._write_average)
    entry = SearchEntry(**json.loads((home / "tlsearch_runs" / NAME / "search.json").read_text()))
    if kind == "ensemble":
        make_ensemble.make_ensemble(entry)
    elif kind == "soup":
        make_soup.make_soup(entry, runs=1)
    else:
        Objective.better = lambda *_: True  # type: ignore[method-assign]
        promote(entry, PromoteOptions(combined="distilled", without_test=True))


def _dying_at(point: str, write: Callable[..., None]) -> Callable[..., None]:
    def dying(*values: object) -> None:
        os.environ["TLSEARCH_CRASH_AT"] = point
        write(*values)

    return dying


def _look_and_go_on(home: Path, kind: str, path: Path) -> None:
    left = _read_state(home, kind)
    _make(home, kind)
    path.write_text(json.dumps([left, _read_state(home, kind)]))


def _read_state(home: Path, kind: str) -> dict[str, Any]:
    """What the search says of the combination, the digest of its model, and what the registry has."""
    from mlflow import MlflowClient

    from tlsearch.core.codec import to_plain
    from tlsearch.results import load_model
    from tlsearch.results.combine.combination import combined_model, read_combination
    from tlsearch.results.promotion.test_split import checkpoint_digest

    root = home / "tlsearch_runs" / NAME
    made = read_combination(root, kind)  # type: ignore[arg-type]
    digest = ""
    if made is not None:
        digest = checkpoint_digest(combined_model(root, kind))  # type: ignore[arg-type]
        load_model(combined_model(root, kind))  # type: ignore[arg-type]
    versions, aliases = [], {}
    if kind == "distilled":
        client = MlflowClient(tracking_uri=f"sqlite:///{home}/mlflow.db", registry_uri=f"sqlite:///{home}/mlflow.db")
        versions = sorted(str(one.version) for one in client.search_model_versions("name = 'shapes'"))
        if versions:
            aliases = {name: str(one) for name, one in client.get_registered_model("shapes").aliases.items()}
    return {
        "made": made and to_plain(made),
        "digest": digest,
        "versions": versions,
        "aliases": aliases,
        "files": sorted(str(one.relative_to(root)) for one in (root / "combined").rglob("*") if one.is_file()),
        "trials": _digests(root),
    }


def _digests(root: Path) -> dict[str, str]:
    """Of the models that the search has kept."""
    from tlsearch.results.promotion.test_split import checkpoint_digest

    return {one.parent.name: checkpoint_digest(one) for one in sorted(root.glob("trials/*/best"))}


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    main(Path(sys.argv[1]), sys.argv[2])
