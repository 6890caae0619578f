"""A model from a stranger: whatever its files hold, nothing of it is run, and what is not a checkpoint is refused."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from tlsearch.core.errors import StorageError
from tlsearch.results import load_model

if TYPE_CHECKING:
    from conftest import Trained


class _Bomb:
    """A pickle of it writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.path, "run"))


@pytest.fixture
def model(trained: Trained, tmp_path: Path) -> Path:
    shutil.copytree(trained.folder / "best", tmp_path / "model")
    return tmp_path / "model"


def _tamper(model: Path, **changes: object) -> None:
    path = model / "checkpoint.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth", "weights.pt", "weights.bin"])
@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_a_pickle_in_place_of_the_weights_is_refused(model: Path, tmp_path: Path, name: str, writer: str) -> None:
    bomb, mark = model / name, tmp_path / "mark"
    if writer == "pickle":
        bomb.write_bytes(pickle.dumps(_Bomb(mark)))
    else:
        torch.save({"w": _Bomb(mark)}, bomb)
    _tamper(model, weights_file=name, weights_sha256=hashlib.sha256(bomb.read_bytes()).hexdigest())
    with pytest.raises(StorageError, match="safetensors"):
        load_model(model)
    assert not mark.exists()


def test_a_checkpoint_that_points_outside_of_its_folder_is_refused(model: Path, tmp_path: Path) -> None:
    weights = json.loads((model / "checkpoint.json").read_text())["weights_file"]
    shutil.copy(model / weights, tmp_path / weights)
    for path in (f"../{weights}", str(tmp_path / weights)):
        _tamper(model, weights_file=path)
        with pytest.raises(StorageError, match="never a path"):
            load_model(model)


def test_the_code_of_an_mlflow_model_is_not_run_by_load_model(model: Path, tmp_path: Path) -> None:
    folder, mark = tmp_path / "mlflow", tmp_path / "mark"
    shutil.copytree(model, folder / "artifacts" / "best")
    (folder / "served.py").write_text(f"open({str(mark)!r}, 'w')\n")
    (folder / "MLmodel").write_text("flavors:\n  python_function:\n    loader_module: served\n")
    assert len(load_model(folder).classes) == 3
    assert not mark.exists()
