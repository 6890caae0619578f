"""``soup``: the average is a model like any other, a death leaves the old or the new, and each refusal says why."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_search import small_search
from soup_search import BACKBONE, SPACE, soup_search

from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.app.catalog.stored import read_record, stored_file
from tlsearch.app.combined import make_soup as souping
from tlsearch.app.combined.make_soup import make_soup
from tlsearch.app.production.choice import Limits
from tlsearch.app.production.promote import PromoteOptions, promote
from tlsearch.core.errors import StorageError, UserError
from tlsearch.core.metrics import METRICS
from tlsearch.core.types import SearchRecord
from tlsearch.data import load_index
from tlsearch.results import load_model, logits_on
from tlsearch.results.combine.combination import combined_model, read_combination
from tlsearch.results.combine.greedy_soup import SoupChoice
from tlsearch.results.promotion.test_split import checkpoint_digest
from tlsearch.search import holding


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> SearchEntry:
    root = tmp_path_factory.mktemp("soup")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLSEARCH_STATE_DIR", str(root / "state"))
        patch.setenv("TLSEARCH_CACHE_DIR", str(root / "cache"))
        entry = soup_search(root)
    shutil.copytree(entry.path, entry.path.with_name("copy"))
    return entry


@pytest.fixture
def entry(template: SearchEntry, monkeypatch: pytest.MonkeyPatch) -> SearchEntry:
    monkeypatch.setenv("TLSEARCH_CACHE_DIR", str(template.path.parents[1] / "cache"))
    monkeypatch.setattr(souping, "measure_latency", lambda spec: 7.0)
    shutil.rmtree(template.path)
    shutil.copytree(template.path.with_name("copy"), template.path)
    return template


def _choice(*members: int, helps: bool = True) -> SoupChoice:
    return SoupChoice(
        members=members,
        value=0.5,
        cross_fitted=0.5,
        best=members[0],
        best_value=0.6,
        best_cross_fitted=0.7,
        helps=helps,
    )


def _took(monkeypatch: pytest.MonkeyPatch, *members: int, helps: bool = True) -> None:
    """As if the greedy choice were this one, among these trials, whichever of them were better than their start."""

    def candidates(record: SearchRecord, *_: object) -> souping._Candidates:
        trials = tuple(trial for trial in record.ranked if trial.number in members)
        return souping._Candidates(trials=trials, outside=())

    monkeypatch.setattr(souping, "_candidates", candidates)
    monkeypatch.setattr(souping, "choose_soup", lambda *given, **more: _choice(*members, helps=helps))


def test_a_soup_is_a_model_with_the_average_of_the_weights(entry: SearchEntry) -> None:
    result = make_soup(entry)
    record = read_record(entry)
    assert result == read_combination(entry.path, "soup")
    numbers = [one.trial for one in result.members]
    model = load_model(combined_model(entry.path, "soup"), device="cpu")
    assert {one.count for one in result.members} == {1} and result.num_val == 36 and result.latency_ms == 7.0
    assert record.best is not None and result.best_trial == record.best.number
    assert result.best_value == pytest.approx(record.best.best_value, abs=1e-4)
    if not result.helps:  # noise: the others tell what is written then
        assert numbers == [result.best_trial]
    assert result.helps == (result.gain > 0)
    index = load_index(stored_file(entry, "")[0].data)
    logits = logits_on(model, index, "val").numpy()
    value = METRICS["val_loss"].value(logits, np.array(index.splits["val"].labels))
    assert value == pytest.approx(result.value, abs=1e-4) == pytest.approx(model.meta.value, abs=1e-4)


def test_members_best_first_with_their_own_statistics(entry: SearchEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    _took(monkeypatch, 2, 1, 0)
    make_soup(entry)
    folder = combined_model(entry.path, "soup")
    model = load_model(folder, device="cpu")
    assert model.meta.members == (2, 1, 0) and model.meta.temperature == 1.0
    assert model.meta.config == read_record(entry).trials[2].config
    states = [load_model(entry.path / f"trials/{n}/best", device="cpu").model.state_dict() for n in (2, 1, 0)]
    own = model.model.state_dict()
    weight = "head.classifier.weight"
    assert torch.allclose(own[weight], sum(state[weight] for state in states) / 3, atol=1e-6)
    stem = next(name for name in own if name.startswith("stem"))
    assert torch.equal(own[stem], states[0][stem])
    # It reads as a plain model and says of which trials it is made; a trial's own file has no such key.
    assert '"members": [' in (folder / "checkpoint.json").read_text()
    assert "members" not in (entry.path / "trials/2/best/checkpoint.json").read_text()


def test_where_it_does_not_help_the_model_is_the_best_trial_s(
    entry: SearchEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    _took(monkeypatch, 4, 1, helps=False)
    result = make_soup(entry)
    assert [one.trial for one in result.members] == [4] and not result.helps and result.value == 0.6
    assert checkpoint_digest(combined_model(entry.path, "soup")) == checkpoint_digest(entry.path / "trials/4/best")


def test_a_promoted_soup_is_the_soup_and_was_tested_beside_the_best_trial(
    entry: SearchEntry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Asked for, or as the best that is quick enough."""
    entry = replace(entry, tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    _took(monkeypatch, 2, 1, 0)
    make_soup(entry)
    result = promote(entry, PromoteOptions(combined="soup"))
    assert (result.kind, result.trial, [one.trial for one in result.members]) == ("soup", 2, [2, 1, 0])
    assert result.test is not None and result.test.against is not None
    assert all(text in result.card for text in ("soup", "McNemar"))
    images = sorted((entry.path.parents[1] / "images/test").rglob("*.png"))
    served = load_model(result.uri, tracking_uri=entry.tracking_uri, device="cpu")
    own = load_model(combined_model(entry.path, "soup"), device="cpu")
    assert served.meta.members == (2, 1, 0)
    index = load_index(stored_file(entry, "")[0].data)
    assert torch.equal(logits_on(served, index, "test"), logits_on(own, index, "test")) and len(images) == 12
    quick = promote(entry, PromoteOptions(limits=Limits(latency_ms=8.0), without_test=True))
    assert quick.kind == "soup"


_SCRIPT = """
import json, sys
from pathlib import Path
from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.app.combined import make_soup as souping
from tlsearch.results.combine.greedy_soup import SoupChoice
choice = SoupChoice(**json.loads(sys.argv[2]))
souping.choose_soup = lambda *given, **more: choice
souping._candidates = lambda record, *_: souping._Candidates(
    trials=tuple(trial for trial in record.ranked if trial.number in choice.members), outside=()
)
souping.make_soup(SearchEntry(**json.loads(Path(sys.argv[1]).read_text())))
"""


@pytest.mark.parametrize(
    "point",
    [
        "soup_model",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("member_trained", "soup_chosen", "model_tensors")),
    ],
)
def test_a_death_leaves_none_or_a_whole_one_and_the_same_call_makes_it(
    entry: SearchEntry, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    _took(monkeypatch, 2, 1, 0)
    first = make_soup(entry)
    model = combined_model(entry.path, "soup")
    whole = checkpoint_digest(model)
    if point != "model_tensors":  # which a member that is trained again would pass first
        shutil.rmtree(entry.path / "trials/1/best")
    environment = {**os.environ, "TLSEARCH_CRASH_AT": point}
    chosen = json.dumps(asdict(_choice(2, 1, 0)))
    command = [sys.executable, "-c", _SCRIPT, str(entry.path / "search.json"), chosen]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    if point == "member_trained":
        assert read_combination(entry.path, "soup") == first and checkpoint_digest(model) == whole
    else:
        assert read_combination(entry.path, "soup") is None
    assert make_soup(entry) == first
    assert checkpoint_digest(model) == whole
    assert sorted(path.name for path in (entry.path / "combined").iterdir()) == ["soup", "soup.json"]


def test_only_trials_that_began_alike_are_averaged(entry: SearchEntry, tmp_path: Path) -> None:
    random_weights = small_search(tmp_path)
    with pytest.raises(UserError, match=r"two or more trials that began alike.*small has none"):
        make_soup(random_weights)
    record, file = read_record(entry), stored_file(entry, "")[0]
    found = souping._candidates(record, file, 3)
    assert found.numbers == [trial.number for trial in record.ranked][:3] and found.outside == ()
    assert file.weights[BACKBONE].kind == "file" and "random" not in SPACE
    with holding(entry.path, "confirm"), pytest.raises(StorageError, match="confirm"):
        make_soup(entry)
