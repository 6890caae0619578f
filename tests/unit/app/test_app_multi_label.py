"""A search of images with several classes each, end to end: report, predictions, ensemble, promotion, serving, init."""

from __future__ import annotations

import base64
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from several_labels import COUNTS, SPACE, TINTS, write_tints
from sklearn.metrics import average_precision_score
from small_search import small_search
from typer.testing import CliRunner

import tlsearch.cli.commands  # noqa: F401  # its modules add their commands
from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.app.checks.check_file import check_file
from tlsearch.app.combined.make_ensemble import make_ensemble
from tlsearch.app.init.write_space import InitOptions, init_space
from tlsearch.app.production.export_model import export_model
from tlsearch.app.production.promote import PromoteOptions, promote
from tlsearch.app.views.compare_searches import compare
from tlsearch.app.views.predictions import predict_images, predict_labelled
from tlsearch.app.views.report import write_search_report
from tlsearch.cli.root import app
from tlsearch.core.errors import UserError
from tlsearch.data import load_index, read_image
from tlsearch.results import load_model, logits_on, predict
from tlsearch.results.answer_comparison import AnswerComparison
from tlsearch.results.combine.combination import combined_model
from tlsearch.results.export.base import prepared_images
from tlsearch.space import load
from tlsearch.train import read_model_meta


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("several")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLSEARCH_STATE_DIR", str(root / "state"))
        patch.setenv("TLSEARCH_CACHE_DIR", str(root / "cache"))
        write_tints(root / "images")
        small_search(root, space=SPACE.format(more=""))
    return root


@pytest.fixture
def entry(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SearchEntry:
    """The search as all tests find it, and a store of its own."""
    monkeypatch.setenv("TLSEARCH_STATE_DIR", str(home / "state"))
    monkeypatch.setenv("TLSEARCH_CACHE_DIR", str(home / "cache"))
    found = SearchEntry(**json.loads((home / "tlsearch_runs/small/search.json").read_text()))
    folder = home / "tlsearch_runs" / "small"
    shutil.rmtree(folder / "combined", ignore_errors=True)
    (folder / "test_uses.json").unlink(missing_ok=True)
    return replace(found, tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")


def best_folder(entry: SearchEntry, trial: int = 1) -> Path:
    return entry.path / "trials" / str(trial) / "best"


def files(home: Path, split: str) -> list[Path]:
    return [home / "images" / f"{split}-{number:02d}.png" for number in range(COUNTS[split])]


def truth(number: int) -> set[str]:
    return {name for place, name in enumerate(TINTS) if (number >> place) & 1}


def test_every_trial_is_ranked_by_the_map(entry: SearchEntry) -> None:
    metas = [read_model_meta(best_folder(entry, number)) for number in range(3)]
    assert [meta.metric for meta in metas] == ["val_map"] * 3 and entry.metric == "val_map"
    assert all(len(meta.thresholds) == 3 for meta in metas)
    assert max(meta.value for meta in metas) > 0.8


def test_predictions_are_the_classes_above_their_thresholds(entry: SearchEntry, home: Path) -> None:
    model = load_model(best_folder(entry))
    found = predict(model, files(home, "val"))
    right = 0
    for number, one in enumerate(found):
        plain = {score.label: score.score for score in one.top}
        limits = dict(zip(TINTS, model.thresholds, strict=True))
        labels = {score.label for score in one.labels}
        assert labels == {name for name, score in plain.items() if score > limits[name]}
        assert one.label == max(plain, key=plain.__getitem__)
        right += labels == truth(number)
    assert right >= 8
    predicted = predict_images(str(best_folder(entry)), files(home, "val")[:2])
    for one, other in zip(predicted.predicted, found[:2], strict=True):
        assert [score.label for score in one.labels] == [score.label for score in other.labels]
        others = [score.score for score in other.labels]  # of a larger batch, which some CPUs compute otherwise
        assert [score.score for score in one.labels] == pytest.approx(others, abs=1e-6)


def test_labelled_images_of_a_table_are_scored_whole(entry: SearchEntry, home: Path, tmp_path: Path) -> None:
    header, *lines = (home / "images/table.csv").read_text().splitlines()
    table = home / "images/val.csv"
    own = [line.replace(",val", ",train") for line in lines if line.startswith("val-")]
    table.write_text("\n".join([header, *own]))
    found = predict_labelled(str(best_folder(entry)), table, split="train")
    said = [{one.label for one in answer.labels} for answer in found.predicted]
    numbers = [int(Path(one.path).stem[-2:]) for one in found.predicted]
    assert found.accuracy == np.mean([labels == truth(number) for labels, number in zip(said, numbers, strict=True)])
    assert found.interval is not None and "" in found.truths and "blue|green" in found.truths
    with pytest.raises(UserError, match=r"a folder of labelled images .* does not fit data\.task multi_label: .*table"):
        predict_labelled(str(best_folder(entry)), home / "images")


def test_the_report_has_the_average_precision_of_each_class(entry: SearchEntry, tmp_path: Path) -> None:
    result = write_search_report(entry, directory=tmp_path / "report", log=False)
    page = result.page.read_text()
    assert "Average precision by class" in page and "Confusion matrix" not in page
    assert "answers are wrong, at the thresholds" in page and "bootstrap over the images" in page
    assert (tmp_path / "report" / "plots" / "precisions.png").is_file() and "model" not in result.skipped
    assert ("Worst mistakes" in page) == (": 0 of 48 answers" not in page) and "Doubtful labels" not in page


def test_an_ensemble_averages_probabilities_and_has_thresholds_of_its_own(entry: SearchEntry) -> None:
    made = make_ensemble(entry)
    assert made.metric == "val_map" and made.value >= max(made.best_value, 0.8) - 1e-9
    model, index = load_model(combined_model(entry.path, "ensemble")), load_index(load(home_space(entry))[0].data)
    assert len(model.raw_thresholds) == 3
    scores, labels = logits_on(model, index, "val").numpy(), index.label_array("val")
    assert average_precision_score(labels, scores, average="macro") == pytest.approx(made.value, abs=2e-3)


def home_space(entry: SearchEntry) -> Path:
    return entry.path.parents[1] / "space.yaml"


def test_a_promotion_looks_at_the_test_split_once(entry: SearchEntry, home: Path) -> None:
    result = promote(entry, PromoteOptions())
    test = result.test
    assert test is not None and test.headline.name == "map"
    model = load_model(result.uri, tracking_uri=entry.tracking_uri)
    answers = predict(model, files(home, "test"))
    said = [{one.label for one in answer.labels} for answer in answers]
    exact = np.mean([labels == truth(number) for number, labels in enumerate(said)])
    assert test.exact_match == pytest.approx(exact)
    scores = np.array([[{s.label: s.score for s in one.top}[name] for name in TINTS] for one in answers])
    labels = np.array([[name in truth(number) for name in TINTS] for number in range(COUNTS["test"])])
    assert test.headline.value == pytest.approx(average_precision_score(labels, scores, average="macro"))
    assert test.headline.low <= test.headline.value <= test.headline.high
    for text in ("Test mAP", "micro F1", "average precision | threshold", "any number of the 3 classes", "sigmoid"):
        assert text in result.card, text
    from mlflow import MlflowClient

    version = MlflowClient(tracking_uri=entry.tracking_uri, registry_uri=entry.tracking_uri)
    tags = version.get_model_version_by_alias("tints", "champion").tags
    assert float(tags["test_map"]) == pytest.approx(test.headline.value, abs=1e-5)
    again = promote(entry, PromoteOptions())
    assert again.test == test and again.version == result.version


def test_the_served_model_answers_with_all_labels(
    entry: SearchEntry, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.pyfunc import load_model as load_pyfunc

    result = promote(entry, PromoteOptions(without_test=True))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", entry.tracking_uri)
    served = load_pyfunc(result.uri)
    paths = files(home, "val")[:3]
    answers = served.predict([base64.b64encode(path.read_bytes()).decode() for path in paths])
    expected = predict(load_model(result.uri, tracking_uri=entry.tracking_uri), paths)
    for answer, one in zip(answers, expected, strict=True):
        assert [each["label"] for each in answer["labels"]] == [each.label for each in one.labels]
    outputs = served.metadata.signature.outputs
    assert [column.name for column in outputs.inputs] == ["label", "score", "top", "labels"]


def test_an_export_gives_sigmoid_scores_and_names_the_thresholds(entry: SearchEntry, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    result = export_model(str(best_folder(entry)), form="onnx", output=tmp_path / "m.onnx")
    assert result.parity.scores < 1e-4
    metadata = {one.key: one.value for one in onnx.load(str(tmp_path / "m.onnx")).metadata_props}
    assert json.loads(metadata["thresholds"]) == pytest.approx(load_model(best_folder(entry)).thresholds)
    assert metadata["task"] == "multi_label" and "sigmoid" in metadata["outputs"]


@pytest.mark.slow  # that of arrays in test_app_several_channels.py is one of several classes
def test_a_quantized_file_is_tested_by_images_with_all_answers_right(entry: SearchEntry, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    found = export_model("small:0", form="onnx", output=tmp_path / "m.onnx", int8=True).int8
    assert found is not None and found.test.num_images == COUNTS["val"]
    model, index = load_model(best_folder(entry, 0)), load_index(load(home_space(entry))[0].data)
    pixels = prepared_images(model, [read_image(index, key) for key in index.split("val").keys])[0].numpy()
    session = runtime.InferenceSession(str(tmp_path / "m.onnx"))
    logits = session.run(None, {session.get_inputs()[0].name: pixels})[0].astype(float)
    labels, limits = index.label_array("val"), np.array(model.raw_thresholds)
    said = 1 / (1 + np.exp(-logits)) > limits
    assert found.accuracy == pytest.approx((said == labels).all(1).mean())
    assert found.metric == "val_map"
    assert found.value == pytest.approx(average_precision_score(labels, logits, average="macro"))
    whole = logits_on(model, index, "val").double().numpy()
    assert found.float_value == pytest.approx(average_precision_score(labels, whole, average="macro"), abs=1e-3)
    assert found.same_labels == ((1 / (1 + np.exp(-whole)) > limits) == said).all(1).sum()


def test_a_folder_for_transformers_says_that_labels_are_several(entry: SearchEntry, home: Path, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    result = export_model("small:1", form="hf", output=tmp_path / "hf")
    assert result.parity.scores < 1e-4  # of the sigmoid
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    thresholds = load_model(best_folder(entry)).thresholds
    assert config["problem_type"] == "multi_label_classification"
    assert config["tlsearch"]["thresholds"] == pytest.approx(thresholds) and "sigmoid" in config["tlsearch"]["outputs"]
    card = (tmp_path / "hf" / "README.md").read_text()
    assert "logits.sigmoid()" in card and "softmax" not in card and "tlsearch.thresholds" in card
    transformers = pytest.importorskip("transformers")
    classify = transformers.pipeline("image-classification", model=str(tmp_path / "hf"), device="cpu")
    for path in files(home, "val")[:3]:
        found = {one["label"]: one["score"] for one in classify(str(path), top_k=3)}
        expected = {one.label: one.score for one in predict(load_model(best_folder(entry)), [path])[0].top}
        assert found == pytest.approx(expected, abs=1e-3)  # the sigmoid of each: they do not add up to 1


def test_two_models_are_compared_by_their_metrics(entry: SearchEntry, home: Path) -> None:
    found = compare("small:0", "small:1")
    assert isinstance(found, AnswerComparison) and found.metric == "val_map" and found.num_images == COUNTS["val"]
    index = load_index(load(home_space(entry))[0].data)
    for trial, ours in ((0, found.metrics[0].a), (1, found.metrics[0].b)):
        scores = logits_on(load_model(best_folder(entry, trial)), index, "val").numpy()
        assert average_precision_score(index.label_array("val"), scores, average="macro") == pytest.approx(ours)
    table = home / "images/plain.csv"
    lines = (line.rpartition(",")[0] for line in (home / "images/table.csv").read_text().splitlines())
    table.write_text("\n".join(line for line in lines if line.startswith(("path", "val-"))))
    same = compare("small:0", "small:1", data=table)
    assert isinstance(same, AnswerComparison) and same.metrics[0].a == pytest.approx(found.metrics[0].a, abs=1e-6)
    said = CliRunner().invoke(app, ["compare", "small:0", "small:1"])
    assert said.exit_code == 0 and found.verdict[:20] in said.output and "average precision" in said.output, said.output


def test_a_folder_or_a_test_image_is_refused(entry: SearchEntry, home: Path) -> None:
    with pytest.raises(UserError):
        compare("small:0", "small:1", data=home / "images")
    header, *lines = (line.rpartition(",")[0] for line in (home / "images/table.csv").read_text().splitlines())
    sealed = home / "images/sealed.csv"
    sealed.write_text("\n".join([header, *(line for line in lines if line.startswith("test-"))]))
    with pytest.raises(UserError, match="stays closed until `promote`"):
        compare("small:0", "small:1", data=sealed)


def test_check_shows_the_classes_of_the_images(entry: SearchEntry) -> None:
    report = check_file(home_space(entry), with_model=False)
    assert report.ok and report.data is not None and report.validation is not None
    assert report.validation.as_json()["chance"] is None and "mAP" in report.validation.lines()[0]
    assert any("1.50 on average, at most 3; 7 of 56 images have none" in note for note in report.data.notes)
    assert report.data.splits["train"].per_class == dict.fromkeys(TINTS, 12)


def test_init_knows_a_table_with_several_names(tmp_path: Path) -> None:
    table = write_tints(tmp_path / "images", counts={"all": 80}, splits=False)
    written = init_space(InitOptions(data=str(table), output=tmp_path / "space.yaml", weights=()))
    tree = yaml.safe_load(written.path.read_text())
    assert tree["data"]["task"] == "multi_label" and tree["search"]["metric"] == "val_map"
    file, _ = load(written.path)
    index = load_index(file.data)
    assert set(index.splits) == {"train", "val", "test"} and index.classes == TINTS
