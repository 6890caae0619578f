"""One local Ray for all tests of a session that do not start a process of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SUPPORT = Path(__file__).resolve().parents[1] / "support"


@pytest.hookimpl(
    tryfirst=True
)  # before xdist looks for groups, also where this file is not the first that pytest reads
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One process runs all of these: two searches at once on a small machine would only wait for each other."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("integration"))


@pytest.fixture(autouse=True)
def _in_one_process(request: pytest.FixtureRequest) -> None:
    """xdist knows a group by what it adds to a test's id."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        assert request.node.nodeid.endswith("@integration"), "this pytest and pytest-xdist do not group tests"


@pytest.fixture(scope="session")
def local_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Two CPUs; the workers can import what is in tests/support. Searches in this process use it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("PYTHONPATH", str(SUPPORT))
        patch.setenv("OMP_NUM_THREADS", "1")
        for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
            patch.setenv(name, "")
            patch.delenv(name)
        import ray  # noqa: F401  # before authentication is settled, as another library might

        from tlsearch.search.cluster.connect import connected

        with connected("local", num_cpus=2):
            yield
