"""The screening of a search: recorded pass by pass, decided once, and what every later start and view makes of it."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from preparing import prepare, prepare_changed, prepare_resume
from search_doubles import drive, killed_at
from small_search import write_shapes

from tlsearch.app.catalog import catalog
from tlsearch.app.catalog.gather_facts import read_facts
from tlsearch.app.catalog.screen_file import decided_screen, read_screen
from tlsearch.app.catalog.stored import read_record, stored_file
from tlsearch.app.checks.feasibility import untried_backbones
from tlsearch.app.searches import screen_backbones
from tlsearch.app.searches.execute import search_plan
from tlsearch.app.searches.prepare import Prepared, RunOptions
from tlsearch.app.searches.screen_backbones import screened
from tlsearch.app.views.outcome import read_leaderboard
from tlsearch.app.views.status import overview
from tlsearch.cli.tables.status_table import status_lines
from tlsearch.core.errors import SearchStopped, StorageError
from tlsearch.core.types import ProbedBackbone, Screen
from tlsearch.search import holding

FILE = """
name: shapes
data: {source: folder, path: ./images, image_size: 32}
weights: {mobilenet_v3_small: none, squeezenet1_1: none, shufflenet_v2_x0_5: none}
space:
  backbone: {from: [shufflenet_v2_x0_5, mobilenet_v3_small, squeezenet1_1], screen: true}
  head_lr: {log: [1.0e-4, 1.0e-1]}
search: {trials: 4, max_epochs: 2, time_budget: 1h}
"""
GOOD = {"shufflenet_v2_x0_5": 0.04, "mobilenet_v3_small": 0.9, "squeezenet1_1": 0.85, "mnasnet0_5": 0.88}


class Heard:
    """An observer that keeps what it hears, and stops the screening after some passes."""

    def __init__(self, stop: threading.Event | None = None, after: int = 0) -> None:
        self.passes: list[tuple[str, int, int]] = []
        self.decisions: list[Screen] = []
        self._stop, self._after = stop, after

    def backbone_probed(self, one: ProbedBackbone, done: int, total: int) -> None:
        self.passes.append((one.backbone, done, total))
        if self._stop is not None and len(self.passes) == self._after:
            self._stop.set()

    def screened(self, screen: Screen) -> None:
        self.decisions.append(screen)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Tasks run here, one after the other; gives when Ray would have been joined and left."""
    connections: list[str] = []

    @contextmanager
    def connected(address: str) -> Iterator[str]:
        connections.append("joined")
        try:
            yield ""
        finally:
            connections.append("left")

    def run_tasks(
        work: Callable[[Any, float], Any],
        items: Sequence[Any],
        resources: Any,
        *,
        address: str,
        done: Callable[[Any, Any], None],
        stop: threading.Event | None,
    ) -> list[Any]:
        assert connections[-1] == "joined"
        found: list[Any] = []
        for item in items:
            if stop is not None and stop.is_set():
                break
            found.append(work(item, 0.0))
            done(item, found[-1])
        return found

    monkeypatch.setitem(sys.modules, "tlsearch.search.ray_tune.tasks", SimpleNamespace(run_tasks=run_tasks))
    monkeypatch.setattr("tlsearch.search.cluster.connect.connected", connected)
    return connections


@pytest.fixture
def made(in_process: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the passes that were made; what they say is made up."""
    names: list[str] = []

    def probe(one: Any, gpus: float) -> ProbedBackbone:
        names.append(one.backbone)
        hits = np.arange(400) < round(400 * GOOD[one.backbone])
        packed = np.packbits(hits).tobytes().hex()
        sizes = {"params_millions": 1.0}
        return ProbedBackbone(backbone=one.backbone, key=one.key, hits=packed, num_val=400, num_train=9, measured=sizes)

    monkeypatch.setattr(screen_backbones, "_probe", probe)
    return names


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_shapes(tmp_path / "images", counts={"train": 6, "val": 8})
    (tmp_path / "space.yaml").write_text(FILE)
    return tmp_path / "space.yaml"


def begin(file: Path, *overrides: str) -> Prepared:
    return prepare(RunOptions(file=file, overrides=overrides, name="one"))


def start(prepared: Prepared, observer: Heard | None = None, stop: threading.Event | None = None) -> Prepared | None:
    """The screening as a start of the search has it."""
    stop = stop or threading.Event()
    with (
        holding(prepared.entry.path, "run") as lock,
        screened(replace(prepared, lock=lock), stop=stop, observer=observer) as ready,
    ):
        return ready


def change(file: Path, old: str, new: str) -> None:
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def run(prepared: Prepared) -> Mapping[str, int]:
    """Runs made-up trials; how many each backbone has had."""
    assert drive(search_plan(prepared)) == "finished"
    tried = [trial.config.backbone for trial in read_record(prepared.entry).trials]
    return {name: tried.count(name) for name in tried}


def test_a_search_goes_on_with_what_its_screen_has_kept(file: Path, made: list[str]) -> None:
    prepared, heard = begin(file), Heard()
    assert untried_backbones(prepared.file, prepared.space) == ""
    ready = start(prepared, heard)
    assert ready is not None and ready.space.backbones() == ("mobilenet_v3_small", "squeezenet1_1")
    assert [one[1:] for one in heard.passes] == [(1, 3), (2, 3), (3, 3)] and len(heard.decisions) == 1
    assert heard.decisions[0] == read_screen(prepared.entry)
    assert run(ready).keys() == {"mobilenet_v3_small", "squeezenet1_1"}
    again = prepare_resume(catalog.find("one"), trials="+2")
    assert again.space == ready.space and start(again).space == ready.space and len(made) == 3  # type: ignore[union-attr]
    assert run(again).keys() == {"mobilenet_v3_small", "squeezenet1_1"}
    assert stored_file(prepared.entry, "")[1].backbones() == ready.space.backbones()


def test_what_is_stopped_or_dies_repeats_only_what_was_not_recorded(
    file: Path, made: list[str], in_process: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared, stop = begin(file), threading.Event()
    assert start(prepared, Heard(stop, after=1), stop) is None
    assert in_process == ["joined", "left"]
    assert made == ["shufflenet_v2_x0_5"] and not decided_screen(prepared.entry)
    assert status_lines(overview(prepared.entry))[1] == "1 of 3 backbones screened, before the first trial"

    def dies(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Heard, "backbone_probed", dies)
    with pytest.raises(MemoryError):
        start(prepare_resume(prepared.entry), Heard())
    assert made == ["shufflenet_v2_x0_5", "mobilenet_v3_small"]
    ready = start(prepare_resume(prepared.entry))
    assert made == ["shufflenet_v2_x0_5", "mobilenet_v3_small", "squeezenet1_1"]
    assert ready is not None and len(ready.space.backbones()) == 2
    assert read_screen(prepared.entry).seconds > 0  # type: ignore[union-attr]


def test_a_start_that_dies_once_it_is_decided_leaves_no_pass_to_the_next(file: Path, made: list[str]) -> None:
    prepared = begin(file)
    killed_at("screen_decided:1", lambda: start(prepared))
    decided = read_screen(prepared.entry)
    assert decided is not None and decided.decided
    ready = start(prepare_resume(prepared.entry))
    assert made == [] and ready is not None and ready.space.backbones() == decided.kept


def test_the_trials_have_the_connection_of_the_passes(file: Path, made: list[str], in_process: list[str]) -> None:
    prepared = begin(file)
    with holding(prepared.entry.path, "run") as lock:
        with screened(replace(prepared, lock=lock), stop=threading.Event()) as ready:
            assert ready is not None and in_process == ["joined"]
        assert in_process == ["joined", "left"]
        with screened(replace(prepared, lock=lock), stop=threading.Event()) as ready:
            assert ready is not None and len(made) == 3
        assert in_process == ["joined", "left"]  # nothing to screen: the trials join by themselves


def test_the_time_of_a_screen_is_of_the_budget(file: Path, made: list[str]) -> None:
    ready = start(begin(file))
    assert ready is not None
    plan, screen = search_plan(ready), read_screen(ready.entry)
    assert screen is not None and plan.search.time_budget_s == 3600 - screen.seconds
    assert ready.file.search.time_budget_s == 3600


def test_a_changed_list_measures_what_is_new_and_keeps_what_was_tried(file: Path, made: list[str]) -> None:
    ready = start(begin(file, "search.start_with=[{backbone: shufflenet_v2_x0_5}]"))
    assert ready is not None and len(ready.space.backbones()) == 3  # the user wants to see it
    run(ready)
    change(file, "[shufflenet_v2_x0_5, mobilenet", "[shufflenet_v2_x0_5, mnasnet0_5, mobilenet")
    change(file, "none, squeezenet", "none, mnasnet0_5: none, squeezenet")
    change(file, "trials: 4", "trials: 9")
    changed = prepare_changed(catalog.find("one"))
    assert made[3:] == ["mnasnet0_5"] and changed.carried is not None and not changed.carried.outside
    assert changed.prepared.space.backbones()[:2] == ("shufflenet_v2_x0_5", "mnasnet0_5")
    assert read_screen(ready.entry).reasons["shufflenet_v2_x0_5"] == "in search.start_with"  # type: ignore[union-attr]
    assert run(changed.prepared)["mnasnet0_5"] >= 1


def test_settings_change_without_another_decision(file: Path, made: list[str]) -> None:
    ready = start(begin(file))
    assert ready is not None
    run(ready)
    before = read_screen(ready.entry)
    change(file, "trials: 4", "trials: 6")
    changed = prepare_changed(catalog.find("one"))
    assert changed.carried is None and changed.prepared.space == ready.space
    assert read_screen(ready.entry) == before and len(made) == 3


def test_without_the_screen_all_backbones_are_there_again(file: Path, made: list[str]) -> None:
    ready = start(begin(file))
    assert ready is not None
    run(ready)
    change(file, ", screen: true", "")
    changed = prepare_changed(catalog.find("one"))
    assert len(changed.prepared.space.backbones()) == 3 and read_screen(ready.entry) is None


def test_a_change_before_the_first_trial_is_screened_by_the_next_start(file: Path, made: list[str]) -> None:
    stop = threading.Event()
    assert start(begin(file), Heard(stop, after=2), stop) is None
    change(file, "head_lr: {log: [1.0e-4, 1.0e-1]}", "head_lr: 1.0e-3")
    changed = prepare_changed(catalog.find("one"))
    assert len(made) == 2 and len(changed.prepared.space.backbones()) == 3
    ready = start(changed.prepared)
    assert len(made) == 3 and ready is not None and len(ready.space.backbones()) == 2


def test_views_show_the_screen(file: Path, made: list[str]) -> None:
    prepared = begin(file)
    assert read_facts(prepared.entry).screen is None and overview(prepared.entry).as_json()["screen"] is None
    ready = start(prepared)
    assert ready is not None
    run(ready)
    found = read_leaderboard(prepared.entry, run_ids=False)
    plain = json.loads(json.dumps(found.as_json()))["screen"]
    assert plain["pruned"] == ["shufflenet_v2_x0_5"] and len(plain["kept"]) == 2 and plain["chance"] < 0.05
    assert [one["name"] for one in plain["backbones"]][0] == "mobilenet_v3_small"
    assert overview(prepared.entry).as_json()["screen"] == plain
    notes = "; ".join(found.notes())
    assert "the screen kept 2 of 3 backbones" in notes and "by size alone" in notes and "never tried" not in notes
    assert "the screen kept 2 of 3 backbones" in status_lines(overview(prepared.entry))[1]


def test_a_damaged_screen_is_an_error_of_a_resume_and_a_warning_of_results(file: Path, made: list[str]) -> None:
    prepared = begin(file)
    assert start(prepared) is not None
    (prepared.entry.path / "screen.json").write_text("{")
    with pytest.raises(StorageError, match=r"screen\.json cannot be read"):
        prepare_resume(prepared.entry)
    assert read_facts(prepared.entry).screen is None


def test_real_passes_say_what_is_measured(file: Path, in_process: list[str]) -> None:
    prepared = begin(file, "search.constraints={params_millions: {max: 2}, latency_ms: {max: 1000}}")
    ready, screen = start(prepared), read_screen(prepared.entry)
    assert ready is not None and screen is not None and screen.decided
    for one in screen.passes:
        assert (one.num_train, one.num_val) == (18, 24) and one.accuracy is not None and one.seconds > 0
        assert one.measured.keys() == {"params_millions", "checkpoint_mb", "latency_ms"}
        assert one.measured["params_millions"] == pytest.approx(one.parameters / 1e6)
    assert not screen.reasons


def test_a_pass_that_fails_names_its_backbone(
    file: Path, in_process: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(assignment: object) -> None:
        raise RuntimeError("no such thing")

    monkeypatch.setattr("tlsearch.trial.probe_backbone", fails)
    with pytest.raises(SearchStopped, match="shufflenet_v2_x0_5 could not be screened: RuntimeError: no such thing"):
        start(begin(file))
    assert in_process == ["joined", "left"]


def test_other_images_or_weights_are_other_passes(file: Path, made: list[str]) -> None:
    prepared = begin(file)
    keys = {one.key for one in screen_backbones._passes(prepared)}
    assert len(keys) == 3 and keys == {one.key for one in screen_backbones._passes(prepared)}
    other = replace(prepared, index=replace(prepared.index, digest="other"))
    assert not keys & {one.key for one in screen_backbones._passes(other)}
