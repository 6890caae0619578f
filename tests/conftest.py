"""Fixtures of all tests: a clean environment, and the real data where it is at hand."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from web_site import Site, web_site

settings.register_profile("no_clock", deadline=None)  # a busy machine is no fault
settings.load_profile("no_clock")

# Several workers of pytest-xdist, each with a thread for every CPU, wait for each other: 20.9 s of processor time for
# two trainings that take 13.5 s with one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Servers of MLflow start seven processes each for jobs, of which no test has one.
os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
# With Ray's 15 a busy machine leaves its workers no time at all.
os.environ.setdefault("RAY_worker_niceness", "0")

# Real images and weights that are too large for the repository: a folder `shared` beside the checkout,
# or TLSEARCH_TEST_DATA. Tests that need them skip where they are absent.
_SHARED = Path(os.environ.get("TLSEARCH_TEST_DATA") or Path(__file__).resolve().parents[2] / "shared")


@pytest.fixture(autouse=True)
def _clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has its own state and cache folders, knows no secret, and no MLflow or Ray settings of the user's."""
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "TLSEARCH_CRASH_AT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TLSEARCH_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("TLSEARCH_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("secrets._remembered", "trusted_hosts._trusted", "trusted_hosts._told"):
        monkeypatch.setattr(f"tlsearch.core.{name}", set())


@pytest.fixture(scope="session", autouse=True)
def _copied_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """MLflow takes seconds to lay out a database: each new SQLite file is a copy of one."""
    from tlsearch.tracking import mlflow_database, mlflow_store

    made = tmp_path_factory.mktemp("mlflow") / "mlflow.db"

    def copy(uri: str) -> None:
        path = mlflow_database.sqlite_path(uri)
        if path is not None and not mlflow_database._is_made(path):
            mlflow_database.make_sqlite(f"sqlite:///{made}")
            shutil.copy(made, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlflow_store, "make_sqlite", copy)
        yield


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A web server on this machine; failed downloads are tried again at once."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr("tlsearch.data.fetch.fetcher._PAUSE_S", 0.01)
    with web_site() as site:
        yield site


def _shared(name: str) -> Path:
    path = _SHARED / name
    if not path.exists():
        pytest.skip(f"needs {name} in TLSEARCH_TEST_DATA or in a folder 'shared' beside the checkout")
    return path


@pytest.fixture
def emoji_path() -> Path:
    """16 classes of 64 px PNGs in train/, val/ and test/."""
    return _shared("data/emoji")


@pytest.fixture
def weights_path() -> Path:
    """mobilenet_v2.pth and tf_efficientnet_lite0.pth, trained on ImageNet."""
    return _shared("weights")


@pytest.fixture(scope="session")
def schemas_path() -> Path:
    """The CRDs of KubeRay v1.7.0: ray.io_rayclusters.yaml and ray.io_rayjobs.yaml."""
    return _shared("schemas/kuberay-v1.7.0")
