"""Defaults that follow from data and weights: fitted once, kept in resolved.yaml, left alone in older searches."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from preparing import prepare, prepare_changed, prepare_resume

from tlsearch.app.catalog import catalog
from tlsearch.app.checks.check_file import check_file
from tlsearch.app.checks.data_defaults import fit_defaults
from tlsearch.app.searches.prepare import Prepared, RunOptions
from tlsearch.core.errors import SpaceError
from tlsearch.core.types import TrialConfig
from tlsearch.space import load

FILE = """
name: fitted
data: {source: digits}
weights: {squeezenet1_1: none}
space:
  backbone: squeezenet1_1
  head_lr: {log: [1.0e-3, 1.0e-2]}
search: {trials: 2, max_epochs: 4}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "space.yaml"
    path.write_text(FILE)
    return path


def fitted(path: Path, num_train: int, *overrides: str) -> TrialConfig:
    _, space = fit_defaults(*load(path, overrides), num_train)
    return space.to_config(space.default_point())


def resolved() -> Path:
    return catalog.find("one").path / "resolved.yaml"


def config(prepared: Prepared) -> TrialConfig:
    return prepared.space.to_config(prepared.space.default_point())


@pytest.mark.parametrize(
    ("num_train", "size"), [(1, 4), (64, 4), (110, 4), (127, 4), (128, 8), (255, 8), (256, 16), (512, 32), (10**6, 32)]
)
def test_the_default_batch_shrinks_so_that_an_epoch_has_16_steps(file: Path, num_train: int, size: int) -> None:
    assert fitted(file, num_train).batch_size == size


def test_where_batch_norm_trains_a_batch_is_not_smaller_than_8(file: Path) -> None:
    mobile = ("space.backbone=mobilenet_v2", "weights={mobilenet_v2: none}", "space.unfreeze_depth=1")
    assert fitted(file, 100, *mobile).batch_size == 4
    assert fitted(file, 100, *mobile, "space.bn_policy=[frozen, train]").batch_size == 8


def test_a_batch_size_that_the_user_writes_is_theirs(file: Path) -> None:
    assert fitted(file, 100, "space.batch_size=64").batch_size == 64
    assert fitted(file, 100, "defaults.batch_size=64").batch_size == 64
    assert fitted(file, 100, "space.batch_size=[8, 16, 64]").batch_size == 8, "the nearest to the default begins"
    entry = "search.start_with=[{batch_size: 32}]"
    assert fitted(file, 100, entry).batch_size == 32, "what a starting point names is what it was checked with"
    condition = "space.augmentation={when: {batch_size: 32}, choice: [none, light]}"
    assert fitted(file, 100, condition).batch_size == 32


def test_the_head_starts_from_the_probe_where_something_is_pretrained(file: Path) -> None:
    assert fitted(file, 100).head_init == "random"
    assert fitted(file, 100, "weights={squeezenet1_1: default}").head_init == "probe"
    assert fitted(file, 100, "space.head_init=probe").head_init == "probe"
    conditional = "space.batch_size={when: {unfreeze_depth: 1}, choice: [64, 128]}"
    assert fitted(file, 100, conditional, "space.unfreeze_depth={int: [0, 1]}").batch_size == 4


@pytest.mark.parametrize("value", ["0", "none", "2.5", "[4, 8]", "100000"])
def test_a_default_is_checked(file: Path, value: str) -> None:
    with pytest.raises(SpaceError, match="batch_size"):
        load(file, [f"defaults.batch_size={value}"])
    with pytest.raises(SpaceError, match="head_init"):
        load(file, [f"defaults.head_init={value}"])


def test_a_search_keeps_what_was_fitted_when_it_began(file: Path) -> None:
    file.write_text(FILE.replace("squeezenet1_1: none", "squeezenet1_1: none"))
    begun = config(prepare(RunOptions(file=file, name="one")))
    stored = yaml.safe_load(resolved().read_text())["defaults"]
    assert (
        stored
        == {"batch_size": begun.batch_size, "head_init": begun.head_init}
        == {"batch_size": 32, "head_init": "random"}
    )
    resolved().write_text(resolved().read_text().replace("batch_size: 32", "batch_size: 16"))
    entry = catalog.find("one")
    assert config(prepare_resume(entry)).batch_size == 16
    file.write_text(file.read_text().replace("trials: 2", "trials: 3"))
    assert config(prepare_changed(entry).prepared).batch_size == 16, "as it began, though its file has changed"


def test_a_search_that_began_before_files_named_defaults_goes_on_as_it_was(file: Path) -> None:
    file.write_text(FILE.replace("squeezenet1_1: none", "squeezenet1_1: default").replace("[1.0e-3", "[1.0e-4"))
    file.write_text(FILE)
    prepare(RunOptions(file=file, name="one"))
    tree = yaml.safe_load(resolved().read_text())
    del tree["defaults"]
    tree["space"]["augmentation"] = {"when": {"head_init": "random"}, "choice": ["none", "light"]}
    resolved().write_text(yaml.safe_dump(tree))
    entry = catalog.find("one")
    old = config(prepare_resume(entry, stored=True))
    assert (old.head_init, old.batch_size) == ("random", 32)
    assert config(prepare_resume(entry, trials="+1", stored=True)).head_init == "random"
    assert yaml.safe_load(resolved().read_text())["defaults"]["head_init"] == "random"


def test_check_says_what_was_fitted(file: Path) -> None:
    found = check_file(file, with_model=False)
    assert found.defaults == {"batch_size": 32, "head_init": "random"}
    named = check_file(file, overrides=("space.batch_size=8",), with_model=False)
    assert named.defaults == {"head_init": "random"}
