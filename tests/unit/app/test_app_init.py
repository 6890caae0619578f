"""``tlsearch init``: every file it writes is read without an error, and says what the rules say."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from tlsearch.app.init import candidates
from tlsearch.app.init.candidates import CANDIDATES, AtHand, Candidate, find_weights
from tlsearch.app.init.choices import Seen, data_choices, search_choices, space_choices, weights_choices
from tlsearch.app.init.distance import Measured, measure_distance
from tlsearch.app.init.facts import DataFacts, Machine
from tlsearch.app.init.rules import DOMAINS, Distance, budget_of, choose_backbones
from tlsearch.app.init.write_space import InitOptions, Written, init_space, scalar, space_text
from tlsearch.config import SpaceFile
from tlsearch.core.errors import DataError, StorageError, UserError
from tlsearch.core.types import DataSpec, SplitSpec, WeightsSource
from tlsearch.data import load_index
from tlsearch.space import Fixed, Space, load, unused_weights

CPU = Machine(cores=2, memory_gb=16, gpus=(), disk_gb=100)
GPU = Machine(cores=16, memory_gb=128, gpus=("NVIDIA H200",), disk_gb=500)
SMALL = Machine(cores=8, memory_gb=4, gpus=(), disk_gb=3)


@pytest.fixture(autouse=True)
def _no_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "look", lambda url: OSError("no network"))


def _facts(
    num_train: int, *, classes: int = 4, imbalance: float = 1.0, side: float = 300, ready: bool = False
) -> DataFacts:
    per_class = {f"c{number}": max(1, num_train // classes) for number in range(classes)}
    per_class["c0"] = max(1, round(per_class["c1"] / imbalance))
    return DataFacts(
        spec=DataSpec(source="folder", path="/images", split=SplitSpec(val=0.2, test=0.15)),
        classes=tuple(per_class),
        ready=("train", "val", "test") if ready else (),
        images={"train": num_train, "val": num_train // 5 + 1, "test": 10},
        per_class=per_class,
        sides=(10, side, 3000),
        grey=False,
        alpha=0.0,
        leaks=0,
        notes=(),
        index=cast(Any, None),
    )


def _seen(
    data: DataFacts, machine: Machine, distance: Distance = "open", *, domain: str = "", minutes: float = 10.0
) -> Seen:
    budget = budget_of(machine, minutes)
    at_hand = [AtHand(candidate=one, place="package" if one.package else "download") for one in CANDIDATES]
    chosen = choose_backbones(data, machine, at_hand, distance, budget)
    return Seen(
        data=data,
        machine=machine,
        budget=budget,
        chosen=chosen,
        distance=distance,
        domain=domain,
        distance_reason="near.",
    )


def _loaded(seen: Seen, folder: Path) -> tuple[SpaceFile, Space]:
    choices = [
        *data_choices(seen.data, seen.chosen, "./images"),
        *weights_choices(seen.chosen, {}),
        *space_choices(seen),
        *search_choices(seen),
    ]
    (folder / "images").mkdir(exist_ok=True)
    path = folder / "space.yaml"
    path.write_text(space_text("a name", choices, about=("About it.",), schema="./s.json"))
    assert not unused_weights(*load(path))
    return load(path)


@pytest.mark.parametrize("num_train", [18, 900, 9_000, 90_000])
def test_every_combination_is_a_file_without_an_error(num_train: int, tmp_path: Path) -> None:
    for machine, distance, minutes in itertools.product((CPU, GPU, SMALL), ("near", "open", "middle", "far"), (1, 600)):
        imbalance, side = (50.0, 30.0) if distance in ("open", "far") else (1.0, 300.0)
        data = _facts(num_train, imbalance=imbalance, side=side, ready=minutes == 1)
        file, space = _loaded(_seen(data, machine, distance, minutes=minutes), tmp_path)  # type: ignore[arg-type]
        assert file.search.time_budget_s == 60 * minutes
        assert 6 <= file.search.trials <= 64
        assert (file.search.metric == "val_macro_f1") == (imbalance > 3)
        assert isinstance(space.dimensions["class_balance"].domain, Fixed) == (imbalance < 3)
        assert len(space.backbones()) <= 4


def test_depth_grows_with_data_and_distance(tmp_path: Path) -> None:
    def deepest(num_train: int, distance: str) -> int:
        seen = _seen(_facts(num_train), GPU, distance, minutes=600)  # type: ignore[arg-type]
        return max(_loaded(seen, tmp_path)[1].depths())

    assert [deepest(18, one) for one in ("near", "open", "middle", "far")] == [0, 0, 0, 1]
    assert [deepest(900, one) for one in ("near", "open", "middle", "far")] == [1, 2, 2, 3]
    assert [deepest(9_000, one) for one in ("near", "open", "middle", "far")] == [2, 3, 3, 5]
    assert deepest(90_000, "near") == 5


def test_what_the_time_does_not_allow_is_said(tmp_path: Path) -> None:
    slow = _seen(_facts(9_000), CPU, "far", minutes=10)
    wanted, allowed = slow.depths
    assert (wanted, allowed) == (5, 1)
    depth = next(one for one in space_choices(slow) if one.key[-1] == "unfreeze_depth")
    assert "5 would suit the data, but takes too long for 10 minutes" in depth.reason
    assert "{int: [0, 5]}" in depth.instead


def test_backbones_suit_the_machine_and_the_domain() -> None:
    small = {one.name for one in _seen(_facts(900), CPU).chosen}
    assert small == {"timm/tf_efficientnet_lite0", "mobilenet_v3_large"}
    large = [one.name for one in _seen(_facts(900), GPU, "far").chosen]
    assert large == ["resnet50", "convnext_tiny", "efficientnet_v2_s", "timm/vit_small_patch14_dinov2"]


def test_the_head_of_a_transformer_may_see_more_than_its_last_class_token(tmp_path: Path) -> None:
    _, space = _loaded(_seen(_facts(900), GPU, "far"), tmp_path)
    assert space.to_config(space.complete({"backbone": "timm/vit_small_patch14_dinov2"})).features == "cls"
    assert space.dimensions["features"].domain.contains("last4")
    assert all(choice.key[-1] != "features" for choice in space_choices(_seen(_facts(900), CPU)))


def test_digits_and_letters_are_not_mirrored(tmp_path: Path) -> None:
    _, space = _loaded(_seen(_facts(900), GPU, DOMAINS["documents"].distance, domain="documents"), tmp_path)
    assert space.default_of("augmentation") == "none"
    assert isinstance(space.dimensions["augmentation"].domain, Fixed)


def test_little_memory_and_disk_are_spared(tmp_path: Path) -> None:
    file, _ = _loaded(_seen(_facts(900), SMALL), tmp_path)
    assert file.resources.max_concurrent == 2 and file.cache.features_gb == pytest.approx(0.8)


def test_names_become_yaml_texts() -> None:
    assert [scalar(one) for one in ("./a b", "no", "x: y", "ok-1", "ä#")] == [
        '"./a b"',
        '"no"',
        '"x: y"',
        "ok-1",
        '"ä#"',
    ]


# --- on images -----------------------------------------------------------------------------------


def _write(folder: Path, images: Mapping[str, int], *, mode: str = "RGB", size: int = 40) -> Path:
    rng = np.random.default_rng(0)
    for name, count in images.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            if mode == "I;16":
                pixels = rng.integers(0, 4095, (size, size), dtype=np.uint16)
            else:
                pixels = rng.integers(0, 255, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def _init(folder: Path, **more: Any) -> tuple[Written, SpaceFile, Space]:
    output = folder.parent / "space.yaml"
    options = InitOptions(data=str(folder), output=output, **{"domain": "photos", **more})
    return init_space(options), *load(output)


def test_thirty_images_of_three_classes_train_the_head_alone(tmp_path: Path) -> None:
    _, file, space = _init(_write(tmp_path / "few images", {"a": 10, "b": 10, "c": 10}))
    assert file.name == "few images" and space.depths() == (0,)
    assert (file.data.split.val, file.data.split.test) == (0.25, 0.2)
    assert file.search.trials == 8  # nine validation images tell no more apart
    assert {name: len(split) for name, split in load_index(file.data).splits.items()} == {
        "train": 15,
        "val": 9,
        "test": 6,
    }


def test_a_rare_class_counts_as_much_as_the_other(tmp_path: Path) -> None:
    written, file, space = _init(_write(tmp_path / "rare", {"often": 200, "rare": 4}, size=8))
    assert file.search.metric == "val_macro_f1" and not isinstance(space.dimensions["class_balance"].domain, Fixed)
    assert "2 to 110 of a class" in written.data


def test_classes_of_two_images_have_no_test_split(tmp_path: Path) -> None:
    _, file, _ = _init(_write(tmp_path / "two", {"a": 2, "b": 9}))
    assert "promote needs --without-test" in (tmp_path / "space.yaml").read_text()
    assert set(load_index(file.data).splits) == {"train", "val"}


def test_16_bit_images_are_named(tmp_path: Path) -> None:
    written, file, _ = _init(_write(tmp_path / "deep", {"a": 10, "b": 10}, mode="I;16"))
    assert "1 channel of 16 bits" in written.data and file.data.channels is None  # a search finds them itself
    assert any("values up to 4,0" in one for one in written.warnings)


def test_frames_of_a_film_stay_together(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, film in itertools.product(("a", "b"), range(8)):
        (tmp_path / "films" / name).mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)).resize((64, 64))
        for frame in range(6):
            pixels = np.asarray(picture, dtype=np.int16) + rng.integers(0, 4, (64, 64, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
                tmp_path / "films" / name / f"film{film}_{frame}.png"
            )
    written, file, _ = _init(tmp_path / "films")
    assert file.data.split.group_by == r"^(.+?)[-_ ]?\(?\d+\)?\.[^.]+$" and not written.warnings[1:]
    assert "stay in one split" in (tmp_path / "space.yaml").read_text()


def test_copies_in_the_test_split_are_named_before_promote_refuses(tmp_path: Path) -> None:
    folder = _write(tmp_path / "copies", {"a": 20, "b": 20})
    for number in range(20):
        (folder / "b" / f"{number}.png").write_bytes((folder / "a" / f"{number}.png").read_bytes())
    assert any("promote will refuse this test split" in one for one in _init(folder)[0].warnings)


@pytest.mark.parametrize(
    ("images", "message"),
    [({}, "no class folders"), ({"a": 3}, "only one class folder"), ({"a": 3, "b": 1}, "at least 2 of each class")],
)
def test_a_folder_without_classes_is_refused(tmp_path: Path, images: Mapping[str, int], message: str) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match=message):
        _init(_write(tmp_path / "data", images))
    assert not (tmp_path / "space.yaml").exists()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="flowers does not exist; init takes a folder"):
        _init(tmp_path / "flowers")


def test_broken_images_are_named(tmp_path: Path) -> None:
    folder = _write(tmp_path / "broken", {"a": 6, "b": 6})
    for number in range(6):
        (folder / "a" / f"{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match=r"(?s)repair or remove them.*a/\d.png"):
        _init(folder)


def test_folders_that_look_like_splits_are_asked_about(tmp_path: Path) -> None:
    for top in ("one", "two"):
        _write(tmp_path / "data" / top, {"cat": 5, "dog": 5})
    with pytest.raises(DataError, match="add --layout classes"):
        _init(tmp_path / "data")
    _, file, _ = _init(tmp_path / "data", layout="classes")
    assert file.data.layout == "classes" and load_index(file.data).classes == ("one", "two")


def test_a_file_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    folder = _write(tmp_path / "data", {"a": 5, "b": 5})
    _init(folder)
    with pytest.raises(StorageError, match="--force"):
        _init(folder)
    _init(folder, force=True, minutes=30)
    assert load(tmp_path / "space.yaml")[0].search.time_budget_s == 1800


@pytest.mark.parametrize(
    ("options", "message"),
    [({"domain": "cats"}, "photos, drawings"), ({"minutes": 0.0}, "above 0"), ({"minutes": float("nan")}, "above 0")],
)
def test_wrong_options_are_refused(tmp_path: Path, options: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        _init(tmp_path, **options)


# --- weights and distance ------------------------------------------------------------------------


def test_files_of_weights_are_found_by_their_names(tmp_path: Path) -> None:
    for name in ("resnet18-f37072fd.pth", "tf_efficientnet_lite0.in1k.safetensors", "notes.txt", "my_model.pth"):
        (tmp_path / name).touch()
    found = find_weights([tmp_path])
    assert [one.name for one in found if one.place == "file"] == ["resnet18", "timm/tf_efficientnet_lite0"]
    assert len({one.name for one in found}) == len(found)
    with pytest.raises(UserError, match="named after a backbone"):
        find_weights([tmp_path / "my_model.pth"])
    with pytest.raises(UserError, match="does not exist"):
        find_weights([tmp_path / "none.pth"])


def test_candidates_are_those_of_the_libraries() -> None:
    from timm.models import get_pretrained_cfg
    from torchvision.models import get_model_weights

    for one in CANDIDATES:
        if one.name.startswith("timm/"):
            config = get_pretrained_cfg(one.name.removeprefix("timm/"))
            assert one.url == f"https://huggingface.co/{config.hf_hub_id}/resolve/main/model.safetensors"
        else:
            assert one.url == get_model_weights(one.name).DEFAULT.url


@pytest.mark.parametrize(
    ("last", "before", "distance"),
    [(0.9, 0.6, "near"), (0.7, 0.6, "middle"), (0.6, 0.6, "far"), (0.5, 0.7, "far"), (1.0, 1.0, "near")],
)
def test_the_distance_is_what_the_last_stage_adds(last: float, before: float, distance: str) -> None:
    assert Measured(backbone="x", last=last, before=before, chance=0.03, num_val=300).distance == distance


def test_the_probes_are_those_of_two_stages(tmp_path: Path) -> None:
    index = load_index(DataSpec(source="digits"))
    found = measure_distance(index, "resnet18", WeightsSource(kind="none"), image_size=32)
    assert found is not None and 0.2 < found.last <= 1 and 0.2 < found.before <= 1
    few = replace(
        index, splits={**index.splits, "val": replace(index.splits["val"], keys=index.splits["val"].keys[:20])}
    )
    assert measure_distance(few, "resnet18", WeightsSource(kind="none"), image_size=32) is None


def test_a_users_weights_come_first() -> None:
    own = AtHand(candidate=Candidate(name="resnet34", gmacs=3.7, small=False), place="file", path="resnet34.pth")
    rest = [AtHand(candidate=one, place="download") for one in CANDIDATES]
    chosen = choose_backbones(_facts(300), CPU, [own, *rest], "open", budget_of(CPU, 10.0))
    assert [one.name for one in chosen][0] == "resnet34" and own.source.kind == "file"
