"""What stands still is written once for all trials of a search, by part; a model that leaves the search is whole."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest
import torch
from safetensors.torch import load_file
from test_train_checkpoints import META
from torch import Tensor

from tlsearch.config.checkpoint_meta import read_model_file
from tlsearch.config.model_copies import copy_model, shared_names, whole_model
from tlsearch.core.errors import StorageError
from tlsearch.core.layout import frozen_folder
from tlsearch.features import tensor_digests
from tlsearch.model import StagedModel
from tlsearch.train import copy_calibrated, read_model_state, save_model_checkpoint, share_frozen_part
from tlsearch.train.checkpoint import frozen_part, tensor_files
from tlsearch.train.checkpoint.tensor_files import add_tensors

Build = Callable[..., StagedModel]
PARTS = {"stem", "stage1", "stage2", "stage3", "stage4"}
ALL = PARTS | {f"{part}-statistics" for part in PARTS}
TENSORS = {"stem.weight": torch.arange(10.0)}


@pytest.fixture(autouse=True)
def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen_part, "_known", {})


def save(search: Path, number: int, model: StagedModel, *, depth: int, policy: str = "train") -> Path:
    """The model of a trial as a search keeps it, trained where it may move."""
    model.freeze(depth, policy)
    frozen = model.frozen_state()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name not in frozen:
                tensor.add_(number + 1)
    best = search / "trials" / str(number) / "best"
    shared = share_frozen_part(frozen_folder(best), frozen, tensor_digests(frozen))
    save_model_checkpoint(best, state=model.state_dict(), meta=META, frozen=shared)
    return best


def stems(search: Path) -> list[str]:
    """What the shared files are of."""
    return sorted(path.name.rpartition("-")[0] for path in (search / "frozen").iterdir())


def state_of(best: Path, like: StagedModel) -> dict[str, Tensor]:
    return read_model_state(best, read_model_file(best), like)


def same(model: StagedModel, state: dict[str, Tensor]) -> bool:
    own = model.state_dict()
    return own.keys() == state.keys() and all(torch.equal(tensor, state[name]) for name, tensor in own.items())


def test_trials_of_all_depths_share_the_parts_that_stand_still(tiny_model: Build, tmp_path: Path) -> None:
    """The head alone writes all parts; deeper trials write what they train, and find the rest there."""
    models = {depth: tiny_model(seed=3) for depth in (0, 2, 4, 5)}
    folders = {depth: save(tmp_path, depth, model, depth=depth) for depth, model in models.items()}
    assert stems(tmp_path) == sorted(ALL)
    for depth, model in models.items():
        assert same(model, state_of(folders[depth], tiny_model()))
    named = {depth: {name.rpartition("-")[0] for name in shared_names(folder)} for depth, folder in folders.items()}
    assert named[0] == ALL and named[5] == set()
    assert {name.partition("-")[0] for name in named[2]} == {"stem", "stage1", "stage2"}
    assert {path.name.partition("-")[0] for path in folders[0].iterdir()} == {"checkpoint.json", "weights"}


def test_policies_add_what_they_change_and_no_more(tiny_model: Build, tmp_path: Path) -> None:
    save(tmp_path, 0, tiny_model(seed=3), depth=0)
    adapted = tiny_model(seed=3)
    with torch.no_grad():
        adapted.stage1[1].running_mean.add_(1.0)
    best = save(tmp_path, 1, adapted, depth=0, policy="frozen")
    assert stems(tmp_path) == sorted([*ALL, "stage1-statistics"])
    assert same(adapted, state_of(best, tiny_model()))
    moving = save(tmp_path, 2, tiny_model(seed=3), depth=0, policy="stats")  # its statistics are its own
    assert stems(tmp_path) == sorted([*ALL, "stage1-statistics"]) and len(shared_names(moving)) == len(PARTS)
    save(tmp_path, 3, tiny_model(seed=3), depth=5, policy="frozen")  # batch norm's scales stand still in what trains
    assert len(stems(tmp_path)) == len(ALL) + 1 + len(PARTS)


def test_a_later_trial_writes_nothing_twice(tiny_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process it does not even look at the tensors; in another one it finds the files."""
    save(tmp_path, 0, tiny_model(seed=3), depth=1)
    before = {path.name: path.stat().st_ino for path in (tmp_path / "frozen").iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(frozen_part, "add_tensors", lambda *_: pytest.fail("written again"))
        save(tmp_path, 1, tiny_model(seed=3), depth=1)
    frozen_part._known.clear()
    save(tmp_path, 2, tiny_model(seed=3), depth=1)
    assert {path.name: path.stat().st_ino for path in (tmp_path / "frozen").iterdir()} == before
    gone = next((tmp_path / "frozen").iterdir())
    gone.unlink()
    model = tiny_model(seed=3)
    assert same(model, state_of(save(tmp_path, 3, model, depth=1), tiny_model()))


def test_of_writers_that_come_at_once_one_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(tensor_files, "crash_point", written.append)
    tensors = {"stem.weight": torch.arange(1000.0)}
    together = Barrier(8)

    def write(_: int) -> str:
        together.wait()
        return add_tensors(tmp_path / "frozen", "stem", tensors).name

    with ThreadPoolExecutor(8) as pool:
        names = set(pool.map(write, range(8)))
    assert [path.name for path in (tmp_path / "frozen").iterdir()] == list(names) and len(names) == 1
    assert written == ["shared_tensors"]


def claimed(folder: Path, tensors: dict[str, Tensor], *, age_s: float) -> tuple[Path, Path]:
    """The file of these tensors, and the claim of another process that is writing it."""
    path = folder / add_tensors(folder, "stem", tensors).name
    path.unlink()
    claim = path.with_name(f"{path.name}.tmp")
    claim.write_bytes(b"half")
    os.utime(claim, (time.time() - age_s,) * 2)
    return path, claim


def test_a_writer_that_has_died_is_not_waited_for(tmp_path: Path) -> None:
    path, claim = claimed(tmp_path, TENSORS, age_s=60.0)
    add_tensors(tmp_path, "stem", TENSORS)
    assert load_file(path).keys() == TENSORS.keys() and claim.exists()  # it goes when it is an hour old


@pytest.mark.parametrize("ahead_s", [-7200.0, 0.0, 7200.0])
def test_a_living_writer_is_waited_for_whatever_the_clocks_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead_s: float
) -> None:
    """Its file is stamped by another machine's clock."""
    path, claim = claimed(tmp_path, TENSORS, age_s=0.0)
    now = time.time
    monkeypatch.setattr(tensor_files.time, "time", lambda: now() + ahead_s)
    looks: list[float] = []

    def look(pause_s: float) -> None:
        looks.append(pause_s)
        if len(looks) == 3:
            claim.rename(path)

    monkeypatch.setattr(tensor_files.time, "sleep", look)
    add_tensors(tmp_path, "stem", TENSORS)
    assert path.read_bytes() == b"half" and len(looks) == 3  # the other process's file, which it has not touched


def test_a_writer_that_gives_up_is_followed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, claim = claimed(tmp_path, TENSORS, age_s=0.0)
    monkeypatch.setattr(tensor_files.time, "sleep", lambda _: claim.unlink())
    add_tensors(tmp_path, "stem", TENSORS)
    assert list(tmp_path.iterdir()) == [path] and load_file(path).keys() == TENSORS.keys()


def test_a_write_that_fails_leaves_no_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensor_files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        add_tensors(tmp_path, "stem", TENSORS)
    assert list(tmp_path.iterdir()) == []


def test_what_killed_writers_left_is_removed_and_a_living_one_s_is_not(tmp_path: Path) -> None:
    old, young = tmp_path / "stem-1.safetensors.a.tmp", tmp_path / "stem-1.safetensors.b.tmp"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    add_tensors(tmp_path, "stem", {"a": torch.zeros(1)})
    assert not old.exists() and young.exists()


@pytest.mark.parametrize("how", ["copy", "calibrated", "served"])
def test_a_model_that_leaves_its_search_is_whole(tiny_model: Build, tmp_path: Path, how: str) -> None:
    model = tiny_model(seed=3)
    best = save(tmp_path / "search", 0, model, depth=0)
    (best / "confusion.json").write_text("{}")
    target = tmp_path / "elsewhere"
    if how == "copy":
        copy_model(best, target)
        assert (target / "confusion.json").exists()
    elif how == "calibrated":
        copy_calibrated(best, target, 1.5)
    else:
        assert whole_model(best, target) == target
    shutil.rmtree(tmp_path / "search")
    assert same(model, state_of(target, tiny_model()))
    copy_model(target, tmp_path / "again")
    assert same(model, state_of(tmp_path / "again", tiny_model()))


def test_a_model_that_shares_nothing_is_whole_as_it_is(tiny_model: Build, tmp_path: Path) -> None:
    save_model_checkpoint(tmp_path / "best", state=tiny_model().state_dict(), meta=META)
    assert "shared_files" not in json.loads((tmp_path / "best/checkpoint.json").read_text())
    assert whole_model(tmp_path / "best", tmp_path / "spare") == tmp_path / "best"
    assert not (tmp_path / "spare").exists()


def test_a_search_may_move_and_be_reached_by_links_and_relative_paths(
    tiny_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(seed=3)
    save(tmp_path / "before", 7, model, depth=0)
    (tmp_path / "before").rename(tmp_path / "now")
    best = tmp_path / "now/trials/7/best"
    (tmp_path / "latest").symlink_to(best)
    monkeypatch.chdir(best.parent)
    for way in (best, tmp_path / "latest", Path("best"), best / "../../7/best"):
        assert same(model, state_of(way, tiny_model()))


def test_a_copied_folder_of_a_trial_says_what_it_lacks(tiny_model: Build, tmp_path: Path) -> None:
    best = save(tmp_path / "search", 0, tiny_model(), depth=0)
    shutil.copytree(best, tmp_path / "copy")
    with pytest.raises(StorageError, match=r"must be there: .*frozen.*put this file beside its checkpoint\.json"):
        state_of(tmp_path / "copy", tiny_model())
    with pytest.raises(StorageError, match="must be there"):
        copy_model(tmp_path / "copy", tmp_path / "target")
    for path in (tmp_path / "search/frozen").iterdir():
        shutil.copy(path, tmp_path / "copy")
    state_of(tmp_path / "copy", tiny_model())


@pytest.mark.parametrize("name", ["../frozen/stem.safetensors", "/etc/x.safetensors", "..", "stem.pth", ""])
def test_a_shared_file_is_a_name_and_never_a_path(tiny_model: Build, tmp_path: Path, name: str) -> None:
    best = save(tmp_path, 0, tiny_model(), depth=0)
    path = best / "checkpoint.json"
    content = json.loads(path.read_text())
    content["shared_files"][0]["name"] = name
    path.write_text(json.dumps(content))
    with pytest.raises(StorageError, match=r"never a path|never a pickle"):
        read_model_file(best)
    assert name not in shared_names(best)


@pytest.mark.parametrize("listed", [5, "stem", [5], [{}], [{"name": "a.safetensors", "sha256": "0" * 64, "more": 1}]])
def test_a_list_of_shared_files_is_read_as_a_stranger_s(tiny_model: Build, tmp_path: Path, listed: object) -> None:
    best = save(tmp_path, 0, tiny_model(), depth=0)
    path = best / "checkpoint.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "shared_files": listed}))
    with pytest.raises(StorageError, match="shared_files"):
        read_model_file(best)
    assert isinstance(shared_names(best), tuple)


def test_a_changed_shared_file_is_refused(tiny_model: Build, tmp_path: Path) -> None:
    best = save(tmp_path, 0, tiny_model(), depth=0)
    path = next((tmp_path / "frozen").glob("stage3-*"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StorageError, match="sha256"):
        state_of(best, tiny_model())


def test_what_is_read_is_what_is_written(tiny_model: Build, tmp_path: Path) -> None:
    best = save(tmp_path, 0, tiny_model(), depth=2)
    found = read_model_file(best)
    copy_calibrated(best, tmp_path / "copy", 2.0)
    again = read_model_file(tmp_path / "copy")
    assert again == replace(found, meta=replace(found.meta, temperature=2.0))
    assert [file.shared for file in found.files] == [False, *[True] * 6]
