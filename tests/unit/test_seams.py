"""The seams that imports must keep, seen in a fresh interpreter's sys.modules."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from search_doubles import QuickTrial, drive, make_plan

from tlsearch.app.catalog import catalog
from tlsearch.tracking import MlflowTracker, TrackedSearch

HEAVY = ("torch", "torchvision", "timm", "ray", "mlflow", "optuna")
FIXED_SPACE = """
name: seams
data: {source: folder, path: images}
weights: {resnet18: none}
space: {backbone: resnet18}
"""


def _modules_after(code: str, *, cwd: Path | None = None, of: Sequence[str] = HEAVY) -> set[str]:
    """Which of these packages a fresh interpreter holds after running ``code``."""
    script = f"{code}\nimport sys, json\nprint(json.dumps([m for m in {tuple(of)!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def _command(*arguments: str, code: int = 0) -> str:
    return f"""
import sys
sys.argv = ["tlsearch", *{list(arguments)!r}]
from tlsearch.cli import main
try:
    main()
except SystemExit as end:
    assert (end.code or 0) == {code}, end.code
"""


@pytest.mark.parametrize("arguments", [("--help",), ("run", "--help"), ("--version",)])
def test_help_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert _modules_after(_command(*arguments)) == set()


def _few_images(root: Path) -> None:
    from PIL import Image

    for split in ("train", "val"):
        for label in ("a", "b"):
            folder = root / "images" / split / label
            folder.mkdir(parents=True)
            for number in range(3):
                Image.new("RGB", (40, 40), (number, 0, 0)).save(folder / f"{number}.png")
    (root / "space.yaml").write_text(FIXED_SPACE)


def test_init_and_check_without_model_import_nothing_heavy(tmp_path: Path) -> None:
    _few_images(tmp_path)
    started = _command("init", "images", "--domain", "photos", "-o", "new.yaml", "--minutes", "600")
    assert _modules_after(started, cwd=tmp_path) == set()
    assert _modules_after(_command("check", "space.yaml", "--no-model"), cwd=tmp_path) == set()


@pytest.mark.parametrize("command", ["confirm", "ensemble", "soup", "promote", "resume"])
def test_an_unknown_search_is_named_before_anything_heavy_is_imported(command: str) -> None:
    assert _modules_after(_command(command, "nosuch", code=2)) == set()


def test_plan_starts_no_ray_and_writes_nothing(tmp_path: Path) -> None:
    _few_images(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    command = _command("plan", "space.yaml", "--json", "--set", "data.image_size=32", "--set", "search.trials=2")
    assert not _modules_after(command, cwd=tmp_path) & {"ray", "mlflow"}
    assert sorted(tmp_path.rglob("*")) == before  # state and cache would be there too


COMPILERS = ("torch._dynamo", "torch._inductor", "sympy")
SLOW = (*HEAVY, "scipy", "sklearn", "sqlalchemy", "matplotlib", "pandas", "pyarrow")


def _a_search(root: Path) -> None:
    """Three trials, in the study and in MLflow."""
    tracker = MlflowTracker(
        TrackedSearch(
            uri=f"sqlite:///{root.parent}/mlflow.db",
            experiment="stub",
            search_id=root.name,
            metric="val_accuracy",
            served_code=root / "served.py",
        )
    )
    tracker.search_started({}, {})
    assert drive(make_plan(root, trials=3), factory=QuickTrial, observers=[tracker]) == "finished"
    assert tracker.close() == 0
    entry = catalog.SearchEntry(
        search_id=root.name,
        experiment="stub",
        directory=str(root),
        source="space.yaml",
        tracking_uri=f"sqlite:///{root.parent}/mlflow.db",
        metric="val_accuracy",
        created=1.0,
    )
    catalog.register(entry)


@pytest.mark.parametrize("command", [("status",), ("status", "--json")])
def test_the_status_of_a_search_imports_optuna_alone(tmp_path: Path, command: tuple[str, ...]) -> None:
    """Each of the others takes a large part of a second, and MLflow two."""
    _a_search(tmp_path / "s")
    assert _modules_after(_command(*command), of=SLOW) == {"optuna"}


def test_the_results_of_a_search_need_no_torch_and_no_ray(tmp_path: Path) -> None:
    _a_search(tmp_path / "s")
    assert _modules_after(_command("results")) == {"optuna"}
    assert _modules_after(_command("results", "--json")) == {"optuna", "mlflow"}


def test_a_worker_imports_beside_ray_tune_only_what_trains() -> None:
    """What it imports before its first epoch, it imports while all workers of a machine do."""
    searching = ("tlsearch.search.study", "tlsearch.search.controller")
    unneeded = (*SLOW, *COMPILERS, "jinja2", "typer", "alembic", *searching)
    with_tune = _modules_after("import ray.tune", of=unneeded)
    worker = "import tlsearch.search.ray_tune.trainable, tlsearch.trial"
    assert _modules_after(worker, of=unneeded) - with_tune == {"torch", "torchvision"}


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("tlsearch", set()),
        ("tlsearch.space", set()),
        ("tlsearch.config", set()),
        ("tlsearch.trial", {"torch", "torchvision"}),
        ("tlsearch.results.inference.mlflow_model", {"torch", "torchvision", "mlflow"}),
        ("tlsearch.results.inference.predictor", {"torch", "torchvision"}),
        ("tlsearch.tracking", {"mlflow"}),
        ("tlsearch.app.cluster.relay", {"optuna"}),  # what `status` needs
    ],
)
def test_a_room_imports_only_what_it_may(module: str, allowed: set[str]) -> None:
    assert _modules_after(f"import {module}") <= allowed
