"""A search on a machine that offers little: no home, no room for a long path, a reader that leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from homes import Home, need_demo_weights, write_digit_images, write_digit_space

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

# Each is imported by the driver, by Ray's workers or by MLflow.
SHADOWS = ("statistics", "random", "queue", "uuid", "numpy", "torch", "ray", "mlflow", "optuna", "search_doubles")


@pytest.mark.slow
def test_a_search_needs_nothing_of_where_it_is_started(tmp_path: Path) -> None:
    """Two trials, started in a folder of modules that must not be imported, by a user without a home.

    What is printed is read to the first line only, and TMPDIR is too long for Ray's sockets.
    """
    need_demo_weights()
    home = Home(tmp_path / "home")
    write_digit_images(home.root / "images", per_class=8)
    write_digit_space(home, trials=2, max_epochs=1)
    stand, long = tmp_path / "stand", tmp_path / ("x" * 80)
    for folder in (stand, long):
        folder.mkdir()
    for name in SHADOWS:
        (stand / f"{name}.py").write_text("raise RuntimeError('imported from the current folder')")
    home.environment |= {"HOME": str(tmp_path / "nowhere"), "TMPDIR": str(long)}
    process = home.start("run", str(home.root / "space.yaml"), "--name", "poor", cwd=stand)
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == f"checking {home.root}/space.yaml\n"
    process.stdout.close()
    stderr = process.stderr.read()
    assert process.wait() == 1, stderr  # its results could not be shown
    assert "standard output is lost (Broken pipe); the search goes on: `tlsearch status` shows it" in stderr
    assert "Traceback" not in stderr, stderr
    results = json.loads(home.run("results", "poor", "--json"))
    assert [trial["state"] for trial in results["trials"]] == ["complete", "complete"]
    assert sorted(path.name for path in stand.iterdir()) == sorted(f"{name}.py" for name in SHADOWS)
    assert not (tmp_path / "nowhere").exists()
