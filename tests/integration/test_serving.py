"""A promoted model behind ``mlflow models serve``: the answers of ``tlsearch predict``, without ray and optuna."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from serving import AUDIT, ask, imported, serving
from small_search import small_search

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class _Served:
    address: str
    root: Path
    store: str


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Served]:
    from tlsearch.app.production.promote import PromoteOptions, promote

    root = tmp_path_factory.mktemp("serving")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLSEARCH_STATE_DIR", str(root / "state"))
        patch.setenv("TLSEARCH_CACHE_DIR", str(root / "cache"))
        entry = small_search(root)
        uri = promote(entry, PromoteOptions()).uri
    environment = {**os.environ, "MLFLOW_TRACKING_URI": entry.tracking_uri, "OMP_NUM_THREADS": "1"}
    with serving(uri, environment=environment, folder=root) as address:
        yield _Served(address, root, entry.tracking_uri)


def test_the_server_answers_as_predict_does(served: _Served, monkeypatch: pytest.MonkeyPatch) -> None:
    from tlsearch.app.views.predictions import predict_images

    files = sorted((served.root / "images").rglob("*.png"))[::5]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", served.store)
    expected = predict_images("models:/shapes@champion", files).answers
    assert len({one.score for one in expected}) == len(files) > 10  # or equal answers would say little
    for answer, ours in zip(ask(served.address, files), expected, strict=True):
        assert answer["label"] == ours.label
        assert answer["score"] == pytest.approx(ours.score, abs=1e-6)
        assert [one["label"] for one in answer["top"]] == [one.label for one in ours.top]


def test_the_serving_processes_import_neither_ray_nor_optuna(served: _Served, tmp_path: Path) -> None:
    ask(served.address, sorted((served.root / "images").rglob("*.png"))[:1])
    assert (served.root / "serve.log").exists()
    processes, imports = imported(served.root / "serve.log")
    assert processes >= 2 and imports == []  # mlflow's command and its server
    log = tmp_path / "seen.log"  # what an import would look like
    environment = {
        **os.environ,
        "PYTHONPATH": str(AUDIT),
        "TLSEARCH_AUDIT_LOG": str(log),
        "TLSEARCH_AUDIT_IMPORTS": "1",
    }
    subprocess.run([sys.executable, "-c", "import optuna"], env=environment, check=True)
    assert imported(log)[1]
