"""A space from a file or a dict, as a script gives it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from small_search import write_shapes

import tlsearch

TREE: dict[str, Any] = {
    "name": "small",
    "data": {"source": "digits"},
    "weights": {"squeezenet1_1": "none"},
    "space": {"backbone": "squeezenet1_1", "head_lr": {"log": [1e-4, 1e-2]}},
    "search": {"trials": 4},
}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_file_and_its_dict_are_the_same_space(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(TREE))
    of_file, of_dict = tlsearch.load_space("space.yaml"), tlsearch.load_space(TREE)
    assert (of_file.file, of_file.space) == (of_dict.file, of_dict.space)
    assert [path.name for path in tmp_path.iterdir()] == ["space.yaml"], "nothing is left of a dict"


def test_relative_paths_of_a_dict_are_those_of_the_current_folder(tmp_path: Path) -> None:
    assert tlsearch.load_space(TREE).file.storage == str(tmp_path / "tlsearch_runs")


def test_overrides_are_values_by_dotted_key() -> None:
    space = tlsearch.load_space(TREE, overrides={"search.trials": 7, "name": "no"})
    assert (space.file.search.trials, space.file.name) == (7, "no"), "a text stays a text"
    again = space.with_overrides({"search.max_epochs": 3})
    assert (again.file.search.trials, again.file.search.max_epochs) == (7, 3)


def test_all_errors_of_a_dict_are_named_by_key_without_a_place() -> None:
    wrong = {**TREE, "search": {"trials": 0}, "weight": {}}
    with pytest.raises(tlsearch.SpaceError) as caught:
        tlsearch.load_space(wrong)
    assert {one.dotted for one in caught.value.faults} >= {"search.trials", "weight"}
    assert not any(one.file or one.line for one in caught.value.faults) and ".space-" not in str(caught.value)


def test_a_value_that_is_not_plain_data_is_an_error_of_the_space() -> None:
    with pytest.raises(tlsearch.SpaceError, match="text, numbers, lists and dicts, not object"):
        tlsearch.load_space({**TREE, "name": object()})


def test_numbers_of_numpy_and_paths_are_plain_data(tmp_path: Path) -> None:
    space = {"backbone": "squeezenet1_1", "head_lr": {"log": np.array([1e-4, 1e-2])}}
    overrides = {"search.trials": np.int64(3), "storage": tmp_path / "runs"}
    loaded = tlsearch.load_space({**TREE, "space": space}, overrides=overrides)
    assert (loaded.file.search.trials, loaded.file.storage) == (3, str(tmp_path / "runs"))
    assert loaded.space == tlsearch.load_space(TREE).space
    with pytest.raises(tlsearch.SpaceError, match=r"^storage: a space holds text, .* not object"):
        tlsearch.load_space(TREE, overrides={"storage": object()})


def test_a_text_of_an_override_may_hold_any_character(tmp_path: Path) -> None:
    assert tlsearch.load_space(TREE, overrides={"storage": "./\N{GRINNING FACE}"}).file.storage.endswith(
        "\N{GRINNING FACE}"
    )


@pytest.mark.parametrize("of_file", [True, False])
def test_a_loaded_space_stays_what_it_is(of_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = {**TREE, "data": {"source": "folder"}, "search": {"trials": 4}}
    (tmp_path / "images").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(tree))
    space = tlsearch.load_space("space.yaml" if of_file else tree, data="images")
    tree["search"]["trials"] = 9  # type: ignore[index]
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = space.with_overrides({"search.max_epochs": 3})
    assert again.file.data == space.file.data and again.file.storage == space.file.storage
    assert again.file.search.trials == 4
    with again.written() as path:
        assert path.parent == tmp_path


def test_values_given_to_run_may_mend_a_space() -> None:
    absent = {"data": {"source": "folder", "path": "absent"}}
    with pytest.raises(tlsearch.SpaceError, match="data.path: .*absent"):
        tlsearch.run({**TREE, "search": {"trials": 0}}, trials=1, overrides=absent)


def test_the_place_of_an_error_in_a_file_is_kept(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text("name: small\nsearch: {trials: 0}\n")
    with pytest.raises(tlsearch.SpaceError, match=r"space\.yaml:2:18: search\.trials"):
        tlsearch.load_space("space.yaml")


def test_a_space_prints_its_dimensions() -> None:
    space = tlsearch.load_space(TREE)
    assert "'small'" in repr(space) and "head_lr" in repr(space)
    assert "<td>head_lr</td>" in space._repr_html_()


def test_init_takes_one_path_of_weights_as_several(tmp_path: Path) -> None:
    write_shapes(tmp_path / "shapes")
    with pytest.raises(tlsearch.TlsearchError, match="--weights takes a file or a folder of weights: absent.pth "):
        tlsearch.init_space(tmp_path / "shapes", weights="absent.pth")
