"""Kills a promotion at every one of its points, and prints what each death left and what the next call made of it.

A process of its own, since it forks: imports are paid once, and no thread is alive before a fork.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any


def main(root: Path) -> None:
    """Works in the folder ``root``; writes ``outcome.json`` there."""
    home = root / "home"
    for name in ("STATE", "CACHE"):
        os.environ[f"TLSEARCH_{name}_DIR"] = str(home / name.lower())
    # What a forked child is to use is imported here, once.
    import mlflow.pyfunc
    import mlflow.store.model_registry.sqlalchemy_store
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
    import small_search  # noqa: F401

    import tlsearch.app.production.promote  # noqa: F401
    from tlsearch.core.crash import PROMOTION
    from tlsearch.trial import FineTuning  # noqa: F401

    home.mkdir()
    in_child(lambda: _prepare(home))
    shutil.copytree(home, root / "before")
    outcome = {}
    for point in PROMOTION:
        shutil.rmtree(home)
        shutil.copytree(root / "before", home)
        killed = in_child(lambda point=point: _promote(home, 1, point))  # type: ignore[misc]
        ended = in_child(lambda: _look_and_go_on(home, root / "states.json"))
        assert ended == 0, f"after a death at {point} the promotion did not go on"
        left, after = json.loads((root / "states.json").read_text())
        outcome[point] = {"killed": killed, "left": left, "after": after}
    (root / "outcome.json").write_text(json.dumps(outcome, indent=2))


def in_child(work: Callable[[], Any]) -> int:
    """Runs in a forked process; its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _prepare(home: Path) -> None:
    from small_search import small_search

    small_search(home)
    _promote(home, 0)


def _promote(home: Path, trial: int, crash_at: str = "") -> None:
    from tlsearch.app.catalog.catalog import SearchEntry
    from tlsearch.app.production.promote import PromoteOptions, promote

    os.environ["TLSEARCH_CRASH_AT"] = crash_at
    entry = SearchEntry(**json.loads((home / "tlsearch_runs/small/search.json").read_text()))
    promote(replace(entry), PromoteOptions(trial=trial, reuse_test=True))


def _look_and_go_on(home: Path, path: Path) -> None:
    """In one process, since MLflow takes long to open its store."""
    left = _read_state(home)
    _promote(home, 1)
    path.write_text(json.dumps([left, _read_state(home)]))


def _read_state(home: Path) -> dict[str, Any]:
    """What the registry holds, and whether what an alias points to can predict."""
    from mlflow import MlflowClient

    from tlsearch.results import load_model
    from tlsearch.results.promotion.test_split import read_uses

    uri = f"sqlite:///{home}/mlflow.db"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    aliases = {name: str(number) for name, number in client.get_registered_model("shapes").aliases.items()}
    champion = client.get_model_version_by_alias("shapes", "champion")
    model = load_model("models:/shapes@champion", tracking_uri=uri)
    experiment = client.get_experiment_by_name("shapes")
    models = client.search_logged_models([experiment.experiment_id])
    return {
        "aliases": aliases,
        "trial": champion.tags["tlsearch.promoted_trial"],
        "complete": bool(champion.description) and "test_accuracy" in champion.tags and len(model.classes) == 3,
        "versions": sorted(str(one.version) for one in client.search_model_versions("name = 'shapes'")),
        "models": len(models),
        "uses": [one.trial for one in read_uses(home / "tlsearch_runs/small")],
    }


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    main(Path(sys.argv[1]))
