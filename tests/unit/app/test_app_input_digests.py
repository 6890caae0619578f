"""Images and weights of a search: refused by what has changed, wherever trials would be mixed or scored on them."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from preparing import prepare, prepare_changed, prepare_confirm, prepare_resume
from small_search import PICTURES, pictures_search, small_search, write_shapes

from tlsearch.app.catalog import catalog
from tlsearch.app.catalog.stored import read_record
from tlsearch.app.production.promote import PromoteOptions, promote
from tlsearch.app.searches.execute import search_plan
from tlsearch.app.searches.input_digests import INPUTS
from tlsearch.app.searches.prepare import RunOptions
from tlsearch.app.searches.rerun import rerun_trial
from tlsearch.core.errors import DataError
from tlsearch.core.types import Decision, EpochReport, TrialAssignment
from tlsearch.data import load_index
from tlsearch.trial import run_trial
from tlsearch.trial.process_cache import release_held


@pytest.fixture
def entry(tmp_path: Path) -> catalog.SearchEntry:
    return pictures_search(tmp_path)


def _images(entry: catalog.SearchEntry) -> Path:
    return entry.path.parents[1] / "images"


def _edit_pixels(images: Path) -> None:
    Image.new("RGB", (40, 36)).save(images / "circle/00.png")


def _rename_class(images: Path) -> None:
    (images / "square").rename(images / "box")


def _add_class(images: Path) -> None:
    shutil.copytree(images / "square", images / "box")


def _add_image(images: Path) -> None:
    shutil.copy(images / "circle/00.png", images / "circle/99.png")


def _remove_images(images: Path) -> None:
    for number in range(4):
        (images / f"stripe/{number:02d}.png").unlink()


def _rename_image(images: Path) -> None:
    (images / "circle/00.png").rename(images / "circle/zz.png")


def _move_image(images: Path) -> None:
    (images / "circle/00.png").rename(images / "square/zz.png")


CHANGES: list[tuple[Callable[[Path], None], str]] = [
    (_edit_pixels, "class 'circle': other files or contents"),
    (_rename_class, "classes: 3 -> 3; new: 'box'; gone: 'square'"),
    (_add_class, "classes: 3 -> 4; new: 'box'"),
    (_add_image, "class 'circle': 8 -> 9 images"),
    (_remove_images, "train: 24 -> 22 images"),
    (_rename_image, "class 'circle': other files or contents"),
    (_move_image, "class 'square': 8 -> 9 images"),
]


@pytest.mark.parametrize(("change", "said"), CHANGES, ids=lambda one: getattr(one, "__name__", ""))
def test_a_resume_on_other_images_says_what_has_changed(
    entry: catalog.SearchEntry, change: Callable[[Path], None], said: str
) -> None:
    journal = (entry.path / "study.journal").read_bytes()
    original = _images(entry).with_name("original")
    shutil.copytree(_images(entry), original)
    change(_images(entry))
    for go_on in (prepare_resume, prepare_changed, lambda one: prepare_resume(one, stored=True, trials="+1")):
        with pytest.raises(DataError) as caught:
            go_on(entry)
        text = str(caught.value)
        assert said in text and "the images have changed since the search began (digest " in text
        assert "start a new search" in text and "--changed" in text
    with pytest.raises(DataError, match="it cannot be confirmed"):
        prepare_confirm(entry, top=1, seeds=2)
    with pytest.raises(DataError, match="its trials cannot be trained again"):
        rerun_trial(entry, 0)
    assert (entry.path / "study.journal").read_bytes() == journal
    assert not (entry.path.parent / "one-confirm").exists()
    shutil.rmtree(_images(entry))
    original.rename(_images(entry))
    assert prepare_resume(entry, trials="+1").file.search.trials == 3  # as they were


def test_a_search_of_the_version_before_is_held_to_what_it_kept(entry: catalog.SearchEntry) -> None:
    (entry.path / INPUTS).unlink()
    assert prepare_resume(entry).resumed
    _add_class(_images(entry))
    with pytest.raises(DataError, match=r"classes: 3 -> 4; new: 'box'\n  train: 24 -> 32 images"):
        prepare_resume(entry)
    shutil.rmtree(_images(entry) / "box")
    _edit_pixels(_images(entry))
    with pytest.raises(DataError, match="the same classes and counts: files were renamed, replaced or edited"):
        prepare_resume(entry)


def test_data_that_are_gone_are_a_problem_and_not_a_change(entry: catalog.SearchEntry) -> None:
    shutil.rmtree(_images(entry))
    with pytest.raises(Exception, match="images' does not exist"):
        prepare_resume(entry)


def test_a_manifest_that_was_edited_is_refused(tmp_path: Path) -> None:
    write_shapes(tmp_path / "images", counts={"all": 12})
    files = sorted((tmp_path / "images").rglob("*.png"))
    rows = [f"{file.relative_to(tmp_path)},{file.parent.name}" for file in files]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *rows]))
    text = PICTURES.replace("source: folder, path: ./images", "source: manifest, path: ./list.csv")
    (tmp_path / "space.yaml").write_text(text)
    entry = prepare(RunOptions(file=tmp_path / "space.yaml", name="one")).entry
    relabelled = [rows[0].replace(",circle", ",square"), *rows[1:]]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *relabelled]))
    with pytest.raises(DataError, match="class 'circle': 8 -> "):
        prepare_resume(entry)
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *reversed(rows)]))
    assert prepare_resume(entry).resumed  # another order of the rows is the same set


def test_only_the_test_split_may_change(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    entry = small_search(tmp_path)
    (tmp_path / "images/test/circle/00.png").unlink()
    with caplog.at_level(logging.WARNING):
        assert prepare_resume(entry).resumed
    assert "the test split has changed since small began: test: 30 -> 29 images" in caplog.text
    shutil.copy(tmp_path / "images/test/circle/01.png", tmp_path / "images/val/circle/99.png")
    with pytest.raises(DataError, match="its models cannot be scored and promoted"):
        promote(entry, PromoteOptions())


@pytest.mark.parametrize("kept", [True, False])
def test_a_weights_file_that_was_replaced_is_refused(entry: catalog.SearchEntry, kept: bool) -> None:
    digests = json.loads((entry.path / INPUTS).read_text())["weights"]
    assert digests == {"squeezenet1_1": "none:squeezenet1_1"}
    if kept:
        plain = json.loads((entry.path / INPUTS).read_text())
        plain["weights"] = {"squeezenet1_1": "f" * 64}
        (entry.path / INPUTS).write_text(json.dumps(plain))
    else:  # a search of the version before: its kept models know
        (entry.path / INPUTS).unlink()
        best = entry.path / "trials/0/best"
        best.mkdir(parents=True, exist_ok=True)
        meta = {"backbone": "squeezenet1_1", "weights_digest": "f" * 64}
        (best / "checkpoint.json").write_text(json.dumps(meta))
    for go_on in (prepare_resume, prepare_changed):
        with pytest.raises(DataError, match="weights have changed .*\n  squeezenet1_1: ffffffff -> none:squ"):
            go_on(entry)


class _Silent:
    def report(self, report: EpochReport) -> Decision:
        return Decision.CONTINUE


def test_a_trial_refuses_images_and_weights_that_are_not_the_searchs(
    entry: catalog.SearchEntry, tmp_path: Path
) -> None:
    plan = search_plan(prepare_resume(entry, trials="+1"))
    config = read_record(entry).trials[0].config
    release_held()
    wrong = replace(plan.setup, weights_digests={"squeezenet1_1": "other"})
    for setup, said in ((wrong, "weights of squeezenet1_1 are not"), (plan.setup, "images are not those")):
        if setup is plan.setup:
            _edit_pixels(_images(entry))
        release_held()
        folder = tmp_path / f"trial of {said}"
        assignment = TrialAssignment(number=0, seed=0, config=config, setup=setup, directory=str(folder))
        assert said in run_trial(assignment, _Silent()).error
    assert load_index(plan.setup.data).classes == ("circle", "square", "stripe")
    release_held()
