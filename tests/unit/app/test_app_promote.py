"""Promotion: one look at a sealed test split, a registered version with its evidence, and every refusal."""

from __future__ import annotations

import json
import logging
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from opens import opens_below
from small_search import CLASSES, COUNTS, small_search, write_shapes

from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.app.catalog.stored import read_record
from tlsearch.app.combined.ensemble_costs import Limits
from tlsearch.app.production import test_uses
from tlsearch.app.production.export_model import search_of_model
from tlsearch.app.production.promote import PromoteOptions, promote
from tlsearch.app.searches.sync import sync_search
from tlsearch.app.views.predictions import predict_labelled
from tlsearch.core.codec import to_plain
from tlsearch.core.errors import DataError, StorageError, TrackingError, UserError
from tlsearch.core.types import Objective
from tlsearch.results import load_model, predict
from tlsearch.results.promotion.test_split import read_uses
from tlsearch.results.stats.verdict import Candidate, Confirmed, Repeated
from tlsearch.search import holding


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that all tests copy back to the very same place."""
    root = tmp_path_factory.mktemp("promote") / "home"
    root.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLSEARCH_STATE_DIR", str(root / "state"))
        patch.setenv("TLSEARCH_CACHE_DIR", str(root / "cache"))
        write_shapes(root / "images")
        with opens_below(root / "images") as opened:
            small_search(root)
    (root / "opened.json").write_text(json.dumps(sorted(opened)))
    _make_store(root / "mlflow.db")
    shutil.copytree(root, root.with_name("template"))
    return root


def _make_store(path: Path) -> None:
    """MLflow takes seconds to lay out a database: it is copied from here on."""
    from mlflow import MlflowClient

    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()


@pytest.fixture
def entry(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SearchEntry:
    shutil.rmtree(template)
    shutil.copytree(template.with_name("template"), template)
    monkeypatch.setenv("TLSEARCH_STATE_DIR", str(template / "state"))
    monkeypatch.setenv("TLSEARCH_CACHE_DIR", str(template / "cache"))
    shutil.copy(template / "mlflow.db", tmp_path / "mlflow.db")  # its engines are held by path: a new one each time
    entry = SearchEntry(**json.loads((template / "tlsearch_runs/small/search.json").read_text()))
    return replace(entry, tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")


def _images(entry: SearchEntry) -> Path:
    return entry.path.parents[1] / "images"


def _client(entry: SearchEntry) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=entry.tracking_uri, registry_uri=entry.tracking_uri)


def test_a_search_opens_every_other_image_and_promote_alone_the_test_images(entry: SearchEntry) -> None:
    images = _images(entry)
    opened = json.loads((images.parent / "opened.json").read_text())  # while the search ran
    assert [name for name in opened if name.startswith("test")] == []
    others = {str(file.relative_to(images)) for file in images.rglob("*.png")} - {*map(str, _test_files(images))}
    assert set(opened) == others and len(others) == 3 * (COUNTS["train"] + COUNTS["val"])
    with opens_below(images) as opened_now:
        promote(entry, PromoteOptions())
    assert {*map(str, _test_files(images))} <= opened_now


def _test_files(images: Path) -> list[Path]:
    return [file.relative_to(images) for file in (images / "test").rglob("*.png")]


def test_a_model_knows_its_search_by_uri_folder_and_id(entry: SearchEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", entry.tracking_uri)
    result = promote(entry, PromoteOptions())
    version = _client(entry).get_model_version_by_alias("shapes", "champion")
    best = f"{entry.path}/trials/{result.trial}/best"
    for model in (
        "models:/shapes@champion",
        "models:/shapes/1",
        f"runs:/{version.run_id}/model",
        best,
        "small",
        "small:0",
    ):
        found = search_of_model(model)
        assert found is not None and found.path == entry.path, model
    assert search_of_model("models:/shapes/7") is None
    assert search_of_model(str(entry.path.parents[1] / "elsewhere")) is None
    assert search_of_model(result.uri) is not None


def test_a_promoted_model_carries_its_evidence(entry: SearchEntry) -> None:
    result = promote(entry, PromoteOptions())
    best = read_record(entry).best
    assert best is not None and result.trial == best.number
    assert (result.model, result.version, result.alias, result.previous) == (
        "shapes",
        "1",
        "champion",
        None,
    )
    version = _client(entry).get_model_version_by_alias("shapes", "champion")
    assert version.version == 1 or version.version == "1"
    assert version.tags["tlsearch.search_id"] == "small"
    assert version.tags["tlsearch.promoted_trial"] == str(best.number)
    assert len(version.tags["tlsearch.data_digest"]) == 64
    assert float(version.tags["test_accuracy"]) == pytest.approx(result.test.accuracy, abs=1e-5)
    assert version.description == result.card
    for part in ("# shapes", "Test accuracy", "Intended use and limits", "licence", "temperature", *CLASSES):
        assert part in result.card, part
    run = _client(entry).get_run(version.run_id)
    assert run.data.metrics["test_accuracy"] == result.test.accuracy
    assert {file.path for file in _client(entry).list_artifacts(version.run_id)} >= {"README.md", "evidence.json"}
    assert run.info.status == "FINISHED"


def test_the_test_accuracy_is_that_of_the_served_model_on_the_files(entry: SearchEntry) -> None:
    result = promote(entry, PromoteOptions())
    model = load_model(result.uri, tracking_uri=entry.tracking_uri)
    files = sorted((_images(entry) / "test").rglob("*.png"))
    predictions = predict(model, files)
    right = sum(Path(one.path).parent.name == one.label for one in predictions)
    assert len(files) == result.test.num_images == 3 * COUNTS["test"]
    assert right / len(files) == result.test.accuracy
    assert model.meta.temperature == result.temperature != 1.0
    low, high = result.test.accuracy_interval
    assert low <= result.test.accuracy <= high


def test_the_model_has_signature_and_example_and_no_pickle(entry: SearchEntry) -> None:
    from mlflow.models import Model

    promote(entry, PromoteOptions())
    version = _client(entry).get_model_version_by_alias("shapes", "champion")
    folder = Path(version.source.removeprefix("file://"))
    model = Model.load(str(folder))
    assert model.signature is not None and model.signature.inputs is not None
    assert model.saved_input_example_info is not None
    assert (folder / "README.md").read_text().startswith("# shapes")
    assert not [p for p in folder.rglob("*") if p.suffix in {".pkl", ".pickle", ".pt", ".pth", ".bin"}]


def test_the_same_model_again_is_the_same_version_without_a_second_look(
    entry: SearchEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = promote(entry, PromoteOptions())
    looked: list[str] = []
    original = test_uses.logits_on

    def watched(model: Any, index: Any, split: str) -> Any:
        looked.append(split)
        return original(model, index, split)

    monkeypatch.setattr(test_uses, "logits_on", watched)
    again = promote(entry, PromoteOptions())
    assert again == first and "test" not in looked
    other = promote(entry, PromoteOptions(alias="staging"))
    assert other.version == first.version and "test" not in looked
    assert len(read_uses(entry.path)) == 1
    aliases = _client(entry).get_registered_model("shapes").aliases
    assert {name: str(number) for name, number in aliases.items()} == {"champion": "1", "staging": "1"}


def test_another_model_may_not_look_at_the_test_split_again(entry: SearchEntry) -> None:
    promote(entry, PromoteOptions(trial=0))
    with pytest.raises(DataError, match="looked at once; this one was used on .* for trial 0 of small"):
        promote(entry, PromoteOptions(trial=2))
    blind = promote(entry, PromoteOptions(trial=2, without_test=True))
    assert blind.test is None and "**No test evidence**" in blind.card
    assert (blind.version, blind.previous) == ("2", "1")
    forced = promote(entry, PromoteOptions(trial=2, reuse_test=True))
    assert "the test split was used before" in forced.card and forced.test is not None
    aliases = _client(entry).get_registered_model("shapes").aliases
    assert {name: str(number) for name, number in aliases.items()} == {"champion": "3", "previous": "2"}


def test_a_second_search_of_the_experiment_may_not_either(entry: SearchEntry) -> None:
    """The record is at the experiment in MLflow, too: by the images' content, whatever their names."""
    promote(entry, PromoteOptions(trial=0))
    for file in (_images(entry) / "test").rglob("*.png"):
        file.rename(file.with_name(f"renamed-{file.name}"))
    second = replace(small_search(entry.path.parents[1], name="second"), tracking_uri=entry.tracking_uri)
    with pytest.raises(DataError, match="trial 0 of small"):
        promote(second, PromoteOptions(trial=1))


def test_a_copy_of_a_training_image_in_test_is_refused(entry: SearchEntry) -> None:
    shutil.copy(_images(entry) / "train/circle/03.png", _images(entry) / "test/stripe/99.png")
    with pytest.raises(DataError, match=r"1 of 31 test images .* test/stripe/99.png = train/circle/03.png"):
        promote(entry, PromoteOptions())
    assert read_uses(entry.path) == []


def test_without_a_test_split_it_takes_a_flag(entry: SearchEntry) -> None:
    shutil.rmtree(_images(entry) / "test")
    with pytest.raises(DataError, match="the data have none; --without-test"):
        promote(entry, PromoteOptions())
    result = promote(entry, PromoteOptions(without_test=True))
    assert "**No test evidence**" in result.card
    assert _client(entry).get_model_version("shapes", result.version).tags["tlsearch.test"] == "none"


@pytest.mark.parametrize("change", ["renamed", "reordered", "missing", "extra"])
def test_other_classes_are_refused_with_both_lists(entry: SearchEntry, change: str) -> None:
    for split in COUNTS:
        folder = _images(entry) / split
        if change == "renamed":
            (folder / "circle").rename(folder / "ring")
        elif change == "missing":
            shutil.rmtree(folder / "circle")
        elif change == "extra":
            shutil.copytree(folder / "circle", folder / "arc")
    if change == "reordered":  # the names are sorted: the model's own order is turned
        for file in entry.path.glob("trials/*/best/checkpoint.json"):
            meta = json.loads(file.read_text())
            meta["classes"] = ["square", "circle", "stripe"]
            meta["class_to_idx"] = {name: place for place, name in enumerate(meta["classes"])}
            file.write_text(json.dumps(meta))
    with pytest.raises(DataError) as caught:
        promote(entry, PromoteOptions(without_test=True))
    text = str(caught.value)
    assert "  model: " in text and "  data:  " in text
    expected = {
        "renamed": ("model: circle, square, stripe", "data:  ring, square, stripe"),
        "reordered": ("model: square, circle, stripe", "another order"),
        "missing": ("model: circle, square, stripe", "the data lack circle"),
        "extra": ("data:  arc, circle, square, stripe", "the model does not know arc"),
    }[change]
    assert all(part in text for part in expected), text


def test_a_trial_that_was_not_kept_is_trained_again_to_the_same_model(entry: SearchEntry) -> None:
    kept = promote(entry, PromoteOptions(trial=1))
    shutil.rmtree(entry.path / "trials/1")
    again = promote(entry, PromoteOptions(trial=1))
    assert again.version == kept.version and again.test == kept.test
    assert (entry.path / "promoted/1/best/checkpoint.json").is_file()


def test_a_refit_trains_on_val_too_and_says_so(entry: SearchEntry, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="tlsearch"):
        result = promote(entry, PromoteOptions(trial=0, refit=True))
    said = [record for record in caplog.records if "trained on train and val together" in record.message]
    assert [record.levelno for record in said] == [logging.INFO]
    assert "trained on train and val together" in result.card
    model = load_model(result.uri, tracking_uri=entry.tracking_uri)
    trial = read_record(entry).trials[0]
    assert model.meta.epoch == trial.best_epoch
    first = json.loads((entry.path / "trials/0/best/checkpoint.json").read_text())
    assert model.meta.value != first["value"] or model.meta.metrics != first["metrics"]


def test_limits_choose_the_best_that_keeps_them(entry: SearchEntry) -> None:
    small = promote(entry, PromoteOptions(limits=Limits(parameters=3_000_000), without_test=True))
    assert small.trial in (0, 1) and "at most 3,000,000" in small.reason
    quick = promote(entry, PromoteOptions(limits=Limits(latency_ms=10_000.0), without_test=True))
    assert "ms an image" in quick.reason and "latency" in quick.card
    with pytest.raises(UserError, match="within the limits"):
        promote(entry, PromoteOptions(limits=Limits(parameters=1000), without_test=True))
    with pytest.raises(UserError, match="not within the limits: 11,"):
        promote(entry, PromoteOptions(trial=2, limits=Limits(parameters=3_000_000), without_test=True))


@pytest.mark.parametrize("alias", ["", "a b", "v1", "Latest", "previous", "staging-previous", "é", "x\n", "a" * 247])
def test_an_alias_that_cannot_be_is_refused_before_the_test_split_is_opened(entry: SearchEntry, alias: str) -> None:
    with pytest.raises(UserError, match="an alias has letters.*" + re.escape(repr(alias))):
        promote(entry, PromoteOptions(alias=alias))
    assert read_uses(entry.path) == []


_CALLS = (
    "get_experiment_by_name",
    "create_run",
    "create_logged_model",
    "log_model_artifacts",
    "search_model_versions",
    "create_registered_model",
    "create_model_version",
    "set_registered_model_alias",
)


def test_what_mlflow_refuses_is_refused_before_the_test_split_is_opened(
    entry: SearchEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    for call in _CALLS:

        def refuse(*_: Any, call: str = call, **__: Any) -> None:
            raise MlflowException(f"{call} is not yours", error_code=7)  # PERMISSION_DENIED

        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, call, refuse)
            _refused(entry, patch, f"{call} is not yours")
    first = promote(entry, PromoteOptions())
    assert first.version == "1"  # nothing stands in the way of the next
    with monkeypatch.context() as patch:  # a model that somebody else has made under this name
        patch.setattr(MlflowClient, "set_registered_model_tag", refuse)
        _refused(entry, patch, "not yours", trial=1 - min(first.trial, 1))


def test_a_full_disk_is_seen_before_the_test_split_is_opened(
    entry: SearchEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr("tlsearch.tracking.registry.rehearsal.shutil.disk_usage", lambda place: usage)
    _refused(entry, monkeypatch, r"MB is to be registered, and .* has 0 MB free")


def _refused(entry: SearchEntry, patch: pytest.MonkeyPatch, said: str, **options: Any) -> None:
    uses = read_uses(entry.path)
    original = test_uses.logits_on

    def watched(model: Any, index: Any, split: str) -> Any:
        assert split != "test"
        return original(model, index, split)

    patch.setattr(test_uses, "logits_on", watched)
    with pytest.raises(TrackingError, match=said):
        promote(entry, PromoteOptions(**options, reuse_test=bool(uses)))
    assert read_uses(entry.path) == uses


@pytest.mark.slow
def test_any_name_of_a_search_is_promoted(entry: SearchEntry) -> None:
    entry = replace(entry, experiment='it\'s `50%` "a:b" #1? é')
    result = promote(entry, PromoteOptions())
    assert result.model == "it's `50%` -a-b- -1- é" and result.version == "1"
    assert load_model(result.uri, tracking_uri=entry.tracking_uri).classes == CLASSES
    assert promote(entry, PromoteOptions()).version == "1"


def test_labelled_test_images_are_not_scored_before(entry: SearchEntry) -> None:
    with pytest.raises(DataError, match="the test split stays closed until `promote` opens it; 30 of these"):
        predict_labelled("small", _images(entry) / "test")
    assert len(predict_labelled("small", _images(entry) / "val").predicted) == 3 * COUNTS["val"]


def test_what_is_not_there_cannot_be_promoted(entry: SearchEntry) -> None:
    with pytest.raises(UserError, match="has no trial 9"):
        promote(entry, PromoteOptions(trial=9))
    (entry.path / "resolved.yaml").unlink()
    with pytest.raises(StorageError, match="resolved.yaml"):
        promote(entry, PromoteOptions())


def test_the_confirmed_winner_comes_first(entry: SearchEntry) -> None:
    """``confirm`` recommends the cheaper configuration, trained again as trial 1 of another search."""
    root = entry.path.parents[1]
    second = small_search(root, name="small-confirm")
    assert replace(second, parent="small").parent == "small"
    objective = Objective.of("val_accuracy")
    repeated = Repeated(
        trial=1, params={}, first_value=0.5, values={0: 0.5}, trials={0: 1}, parameters=1, epoch_seconds=1.0
    )
    confirmed = Confirmed(
        search_id="small",
        confirm_search_id="small-confirm",
        experiment="shapes",
        metric=objective.metric,
        mode=objective.mode,
        data_digest="",
        num_val_images=24,
        seeds=1,
        ended=time.time(),
        candidates=(Candidate.of(repeated, 1, objective),),
        comparisons=(),
        outcome="equal",
        recommended=1,
        verdict="do not differ by more than chance",
    )
    (entry.path / "confirm.json").write_text(json.dumps(to_plain(confirmed)))
    with holding(second.path, ""), pytest.raises(StorageError, match="small-confirm is in use by process"):
        promote(entry, PromoteOptions())
    result = promote(entry, PromoteOptions())
    assert (result.search_id, result.trial) == ("small-confirm", 1)
    assert "do not differ by more than chance" in result.card


# --- the model that the search has kept in MLflow -----------------------------------------


def _keep_models(entry: SearchEntry) -> dict[int, Any]:
    """As the search itself would have: its two best trials' models."""
    sync_search(entry)
    found = _client(entry).search_logged_models(_experiments(entry))
    return {int(model.tags["tlsearch.trial"]): model for model in found}


def _experiments(entry: SearchEntry) -> list[str]:
    return [_client(entry).get_experiment_by_name(entry.experiment).experiment_id]


def _weights(entry: SearchEntry) -> int:
    """Whole sets of weights among MLflow's files."""
    return len(list((Path(entry.tracking_uri.removeprefix("sqlite:///")).parent).rglob("weights-*.safetensors")))


def test_the_kept_model_is_registered_and_not_logged_a_second_time(entry: SearchEntry) -> None:
    kept = _keep_models(entry)
    result = promote(entry, PromoteOptions())
    client, model = _client(entry), kept[result.trial]
    assert len(client.search_logged_models(_experiments(entry))) == len(kept) == _weights(entry)
    version = client.get_model_version_by_alias("shapes", "champion")
    assert version.source == model.artifact_location
    assert version.tags["tlsearch.logged_model"] == f"models:/{model.model_id}"
    served = load_model(result.uri, tracking_uri=entry.tracking_uri)
    assert served.meta.temperature == result.temperature != 1.0
    now = client.get_logged_model(model.model_id)
    assert json.loads(now.tags["mlflow.modelVersions"]) == [{"name": "shapes", "version": 1}]
    assert result.test.accuracy in [one.value for one in now.metrics if one.key == "test_accuracy"]
    run = client.get_run(version.run_id)
    assert [one.model_id for one in run.outputs.model_outputs] == [model.model_id]
    again = promote(entry, PromoteOptions(alias="staging"))
    assert again.version == "1"
    assert json.loads(client.get_logged_model(model.model_id).tags["mlflow.modelVersions"]) == [
        {"name": "shapes", "version": 1}
    ]


def test_a_registered_models_files_are_never_changed(entry: SearchEntry) -> None:
    """The same weights with another card are a version of the same files; with another temperature another model."""
    kept = _keep_models(entry)
    first = promote(entry, PromoteOptions(without_test=True))
    second = promote(entry, PromoteOptions())
    assert (first.version, second.version) == ("1", "2") and _weights(entry) == len(kept)
    model = _client(entry).get_logged_model(kept[first.trial].model_id)
    assert [one["version"] for one in json.loads(model.tags["mlflow.modelVersions"])] == [1, 2]
    folder = Path(model.artifact_location.removeprefix("file://"))
    assert (folder / "README.md").read_text() == first.card
    assert _client(entry).get_model_version("shapes", "2").description == second.card
    (changed,) = folder.glob("artifacts/*/checkpoint.json")
    changed.write_text(json.dumps({**json.loads(changed.read_text()), "temperature": 7.0}))
    third = promote(entry, PromoteOptions(reuse_test=True, without_test=True, alias="third"))
    assert third.version == "1"  # the same promotion is the same version
    other = promote(entry, PromoteOptions(trial=first.trial, without_test=True, alias="fourth"))
    assert _weights(entry) == len(kept) + 1 and json.loads(changed.read_text())["temperature"] == 7.0
    assert load_model(other.uri, tracking_uri=entry.tracking_uri).meta.temperature == first.temperature


def test_other_weights_are_a_model_of_their_own(entry: SearchEntry) -> None:
    kept = _keep_models(entry)
    trial = min(kept)
    promote(entry, PromoteOptions(trial=trial, refit=True, without_test=True))
    models = _client(entry).search_logged_models(_experiments(entry))
    (own,) = [one for one in models if one.model_id not in {kept_one.model_id for kept_one in kept.values()}]
    assert own.name == f"small trial {trial} promoted"
    assert json.loads(own.tags["mlflow.modelVersions"]) == [{"name": "shapes", "version": 1}]


def test_a_death_while_the_kept_model_is_changed_can_be_gone_on_from(
    entry: SearchEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    kept = _keep_models(entry)

    def half(self: Any, model_id: str, local_dir: str, artifact_path: str | None = None) -> None:
        found = list(Path(local_dir).glob("artifacts/*/checkpoint.json"))
        if not found:  # of the rehearsal
            return
        (file,) = found
        location = Path(self.get_logged_model(model_id).artifact_location.removeprefix("file://"))
        (location / file.relative_to(local_dir)).write_text(file.read_text()[:100])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_model_artifacts", half)
        with pytest.raises(KeyboardInterrupt):
            promote(entry, PromoteOptions())
    result = promote(entry, PromoteOptions())
    assert load_model(result.uri, tracking_uri=entry.tracking_uri).meta.temperature == result.temperature
    assert _weights(entry) == len(kept) and len(_client(entry).search_logged_models(_experiments(entry))) == len(kept)
