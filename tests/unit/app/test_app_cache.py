"""``tlsearch cache``: tells what the stores hold, removes what nobody uses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from typer.testing import CliRunner

import tlsearch.cli.commands  # noqa: F401  # its modules add their commands
from tlsearch.app.views.cache_contents import FETCHED, STORES, cache_entries, cache_json, clear_cache
from tlsearch.cli.root import app
from tlsearch.core.types import CacheSpec, DataSpec, TransformSpec
from tlsearch.data import load_index, open_pixels
from tlsearch.features import FeatureKey, Features, open_features, open_solution
from tlsearch.node_cache.locked_files import keep
from tlsearch.node_cache.store import close

TRANSFORM = TransformSpec(resize_size=8, crop_size=8)
KEY = FeatureKey(
    backbone="resnet18",
    weights_digest="w",
    state_digest="s",
    depth=1,
    transform=TRANSFORM,
    data_digest="0123456789",
    split="train",
)
ROWS = torch.arange(40.0).reshape(10, 4)


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """One entry in each store; gives the cache folder."""
    open_pixels(load_index(DataSpec(source="digits")), "val", TRANSFORM, CacheSpec())
    close()
    open_features(KEY, num_rows=10, compute=lambda: [ROWS], cache=CacheSpec())
    close()
    open_solution("linear_probe", KEY, compute=lambda: {"weight": ROWS}, cache=CacheSpec())
    return tmp_path / "cache"


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["cache", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_every_store_is_listed_with_what_it_holds(filled: Path) -> None:
    by_store = {entry.store: entry for entry in cache_entries()}
    assert by_store.keys() == set(STORES)
    assert by_store["features"].content == "resnet18 below depth 1, train images of data 01234567 at 8 px"
    assert by_store["features"].num_bytes == ROWS.numel() * 4
    assert by_store["images"].content.startswith("val images of data ")
    assert by_store["solutions"].content.startswith("linear probe of resnet18")
    open_features(replace(KEY, augmentation="light", view=2), num_rows=10, compute=lambda: [ROWS], cache=CacheSpec())
    contents = {entry.content for entry in cache_entries(["features"])}
    assert by_store["features"].content + ", view 2 of augmentation light" in contents
    close()
    clear_cache(["features"])
    open_features(KEY, num_rows=10, compute=lambda: [ROWS], cache=CacheSpec())
    totals = cache_json(cache_entries())
    assert totals["features"] == {"entries": 1, "num_bytes": 160}
    assert totals["directory"] == str(filled)


def test_the_command_lists_clears_and_says_both(filled: Path) -> None:
    assert "3 entries" in run() and "resnet18" in run()
    assert json.loads(run("--json"))["images"]["entries"] == 1
    assert "removed 1 entry" in run("--clear", "--only", "features")
    assert {entry.store for entry in cache_entries()} == {"images", "solutions"}
    assert len(json.loads(run("--clear", "--json"))["removed"]) == 2
    assert "0 entries" in run()
    assert not [path for path in filled.rglob("*") if path.suffix in (".bin", ".json")]


def test_what_is_mapped_or_being_written_stays(filled: Path) -> None:
    pixels = open_pixels(load_index(DataSpec(source="digits")), "val", TRANSFORM, CacheSpec())
    found = open_features(KEY, num_rows=10, compute=list, cache=CacheSpec())
    assert isinstance(found, Features)
    solution = next((filled / "solutions").glob("*.json"))
    with FileLock(solution.with_suffix(".lock")):
        cleared = clear_cache()
    assert {entry.store for entry in cleared.in_use} == set(STORES)
    assert torch.equal(found.rows, ROWS)
    assert len(pixels.images) > 0
    del pixels, found
    close()
    assert {entry.store for entry in clear_cache().removed} == set(STORES)


def test_a_damaged_entry_is_listed_and_cleared(filled: Path) -> None:
    sidecar = next((filled / "features").glob("*.json"))
    sidecar.write_text("{")
    assert [entry.content for entry in cache_entries(["features"])] == ["cannot be read"]
    assert len(clear_cache(["features"]).removed) == 1
    assert not sidecar.exists()


def test_an_empty_cache_has_nothing(tmp_path: Path) -> None:
    assert cache_entries() == []
    assert clear_cache().removed == ()


@pytest.fixture
def fetched(tmp_path: Path) -> Path:
    """What was fetched, one entry of each kind."""
    root = tmp_path / "cache"
    for file in ("weights/0123-w.pth", "data/4567/a.jpg", "datasets/svhn.mat", "huggingface/89ab-u--set/README.md"):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(b"x" * 100)
    for beside in ("weights/0123-w.pth.lock", "data/4567.lock", "huggingface/89ab-u--set.json", "datasets/.SVHN.lock"):
        (root / beside).write_bytes(b"")
    return root


def test_what_was_fetched_is_listed_and_cleared(fetched: Path) -> None:
    found = {entry.store: entry for entry in cache_entries()}
    assert found.keys() == FETCHED.keys()
    assert found["weights"].content == "weights: w.pth" and found["huggingface"].num_bytes == 100
    assert "4 entries" in run()
    assert json.loads(run("--json"))["weights"] == {"entries": 1, "num_bytes": 100}
    assert "removed 1 entry" in run("--clear", "--only", "huggingface")
    assert not list((fetched / "huggingface").glob("*.json")), "half a set is not taken for whole"
    assert len(clear_cache().removed) == 3
    assert [path.name for path in fetched.rglob("*") if path.is_file()] == [".SVHN.lock"]


def test_a_set_that_a_process_works_with_stays(fetched: Path) -> None:
    keep(fetched / "datasets")
    keep(fetched / "huggingface" / "89ab-u--set")
    with FileLock(fetched / "weights" / "0123-w.pth.lock"):  # it is being fetched
        assert {entry.store for entry in clear_cache().in_use} == {"datasets", "huggingface", "weights"}
    assert (fetched / "datasets" / "svhn.mat").exists()
