"""A search whose storage is a bucket: trials go on on machines that share nothing else, models come to the driver."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from search_doubles import StubTrial, drive, make_plan
from services import ObjectStore, object_store

from tlsearch.core.errors import StorageError
from tlsearch.core.layout import VAL_LOGITS, evict_trial
from tlsearch.core.types import EpochReport, TrialAssignment, TrialConfig, TrialOutcome
from tlsearch.search import bucket, read_search
from tlsearch.search.bucket import Mirror, machine_folder
from tlsearch.search.bucket_trials import Dropper, Fetcher, ThroughBucket


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with object_store(secret="only-in-the-environment") as store:
        yield store


@pytest.fixture
def uri(store: ObjectStore, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A search's address in an empty bucket."""
    for name, value in store.environment().items():
        monkeypatch.setenv(name, value)
    bucket = f"b{abs(hash(request.node.name)):020d}"
    store.client().create_bucket(Bucket=bucket)
    return f"s3://{bucket}/runs/one"


def keys(store: ObjectStore, uri: str) -> set[str]:
    bucket = uri.split("/")[2]
    found = store.client().list_objects_v2(Bucket=bucket, Prefix="runs/one/").get("Contents", [])
    names = {one["Key"].removeprefix("runs/one/") for one in found}
    return {name for name in names if not name.endswith("/")}  # pyarrow leaves marks of folders


class ModelTrial(StubTrial):
    """With a best model as a real trial writes it."""

    def step(self) -> EpochReport:
        report = super().step()
        best = self._directory / "best"
        best.mkdir(exist_ok=True)
        for old in best.glob("weights-*"):
            old.unlink()
        (best / f"weights-{report.epoch}.safetensors").write_bytes(b"x" * (10 + report.epoch))
        (best / "checkpoint.json").write_text(json.dumps({"epoch": report.epoch}))
        (self._directory / VAL_LOGITS).write_text(str(report.epoch))  # one name and one size for all epochs
        return report


def test_both_sides_are_made_equal(tmp_path: Path, uri: str, store: ObjectStore) -> None:
    here, there = (Mirror(uri=uri, directory=tmp_path / name) for name in ("here", "there"))
    best = here.directory / "trials" / "3" / "best"
    best.mkdir(parents=True)
    (best / "weights-1.safetensors").write_bytes(b"one")
    (best / "checkpoint.json").write_text("1")
    (here.directory / "search.json").write_text("{}")
    (here.directory / "lock").write_text("me")
    (best / "checkpoint.json.77.tmp").write_text("half")
    here.push("trials/3")
    here.push_own()
    names = {"trials/3/best/weights-1.safetensors", "trials/3/best/checkpoint.json", "search.json"}
    assert keys(store, uri) == names
    (there.directory / "trials" / "3" / "running").mkdir(parents=True)  # of an earlier stay of the trial here
    there.pull("trials/3")
    assert {path.name for path in (there.directory / "trials/3/best").iterdir()} == {
        "weights-1.safetensors",
        "checkpoint.json",
    }
    assert not (there.directory / "trials/3/running").exists()
    (best / "weights-1.safetensors").rename(best / "weights-2.safetensors")
    (best / "checkpoint.json").write_text("2")
    here.push("trials/3")
    assert keys(store, uri) == {name.replace("weights-1", "weights-2") for name in names}
    there.pull_own()
    assert (there.directory / "trials/3/best/checkpoint.json").read_text() == "2"
    assert (there.directory / "search.json").exists() and there.parts() == ["search.json"]
    here.drop("trials/3")
    there.pull("trials/3/best")
    assert keys(store, uri) == {"search.json"} and not (there.directory / "trials/3/best").exists()


def test_a_checkpoint_is_never_named_before_it_is_there(
    tmp_path: Path, uri: str, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A push that is cut off in its middle leaves a JSON whose tensors are there."""
    mirror = Mirror(uri=uri, directory=tmp_path / "here")
    running = mirror.directory / "trials" / "0" / "running"
    running.mkdir(parents=True)
    (running / "state-1.safetensors").write_bytes(b"one")
    (running / "checkpoint.json").write_text("state-1")
    mirror.push("trials/0")
    (running / "state-1.safetensors").rename(running / "state-2.safetensors")
    (running / "checkpoint.json").write_text("state-2")
    real, sent = bucket._upload, list[str]()

    def cut(path: Path, system: object, key: str) -> None:
        if sent:
            raise OSError("cut")
        sent.append(key)
        real(path, system, key)

    monkeypatch.setattr(bucket, "_upload", cut)
    with pytest.raises(StorageError, match=r"the storage s3://.* failed: cut"):
        mirror.push("trials/0")
    there = Mirror(uri=uri, directory=tmp_path / "there")
    there.pull("trials/0")
    copy = there.directory / "trials/0/running"
    named = (copy / "checkpoint.json").read_text()
    assert named == "state-1" and (copy / f"{named}.safetensors").read_bytes() == b"one"


def test_a_trial_goes_on_on_another_machine(tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(tmp_path / "s", trials=1, max_epochs=4)
    assignment = TrialAssignment(
        number=0, seed=1, config=TrialConfig(backbone="resnet18"), setup=plan.setup, directory="/of/the/driver/trials/0"
    )
    factory = ThroughBucket(uri=uri, inner=ModelTrial)
    monkeypatch.setenv("TLSEARCH_CACHE_DIR", str(tmp_path / "machine-1"))
    first = factory(assignment)
    reports = [first.step(), first.step()]
    monkeypatch.setenv("TLSEARCH_CACHE_DIR", str(tmp_path / "machine-2"))
    second = factory(assignment)
    assert second.epochs_done == 2 and list(second.reports) == reports
    assert second.step().epoch == 3
    monkeypatch.setenv("TLSEARCH_CACHE_DIR", str(tmp_path / "machine-1"))  # back, where older checkpoints lie
    assert factory(assignment).epochs_done == 3


def test_a_whole_search(tmp_path: Path, uri: str, store: ObjectStore) -> None:
    root = machine_folder(uri)
    plan = make_plan(root, trials=5, max_epochs=3, study=f"sqlite:///{tmp_path}/team.db")
    mirror = Mirror(uri=uri, directory=root)
    fetcher, dropper, heard = Fetcher(mirror, models=False), Dropper(mirror), []

    class Keeper:
        """Has trial 1 alone fetched and kept, as the keeper and the tidier do it."""

        def trial_started(self, number: int, config: object) -> None: ...

        def trial_reported(self, number: int, report: object, decision: object) -> None: ...

        def trial_ended(self, number: int, outcome: TrialOutcome) -> None:
            if number == 1:
                fetcher.fetch(number)
            else:
                evict_trial(root / f"trials/{number}")
            heard.append((number, (root / f"trials/{number}/best/checkpoint.json").exists()))

    reason = drive(
        plan, slots=2, factory=ThroughBucket(uri=uri, inner=ModelTrial), observers=(fetcher, Keeper(), dropper)
    )
    assert reason == "finished" and sorted(heard) == [(number, number == 1) for number in range(5)]
    drive(make_plan(tmp_path / "folder", trials=5, max_epochs=3), slots=2)
    found, same = (read_search(one).trials for one in (root, tmp_path / "folder"))
    assert [(t.state, t.params, t.reports) for t in found] == [(t.state, t.params, t.reports) for t in same]
    left = {key for key in keys(store, uri) if key.startswith("trials/")}
    models = {key for key in left if not key.endswith(VAL_LOGITS)}
    assert models and all(key.startswith("trials/1/best/") for key in models)
    assert left - models == {f"trials/{number}/{VAL_LOGITS}" for number in range(5)}
    other = Mirror(uri=uri, directory=tmp_path / "other")
    other.pull_own()  # a start on another machine
    for trial in found:
        file = f"trials/{trial.number}/{VAL_LOGITS}"
        assert (root / file).read_text() == (other.directory / file).read_text() == str(trial.epochs_run)
    assert [path.parent.name for path in other.directory.glob("trials/*/best")] == ["1"]
    assert "study.json" in keys(store, uri)


SHARED = "stem-0123456789abcdef.safetensors"


def write_model(mirror: Mirror, number: int, *names: str) -> None:
    """A trial's model that names files of the search."""
    best = mirror.directory / "trials" / str(number) / "best"
    best.mkdir(parents=True)
    (best / "weights-1.safetensors").write_bytes(b"head")
    (best / "checkpoint.json").write_text(json.dumps({"shared_files": [{"name": name} for name in names]}))


def test_what_trials_share_is_sent_once_and_comes_with_a_model(
    tmp_path: Path, uri: str, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second trial's worker, here on another machine, finds it there; a driver gets it before the model."""
    workers = [Mirror(uri=uri, directory=tmp_path / f"worker-{number}") for number in (0, 1)]
    real, sent, fetched = bucket._upload, list[str](), list[str]()

    def upload(path: Path, system: object, key: str) -> None:
        sent.append(key.rpartition("runs/one/")[2])
        real(path, system, key)

    monkeypatch.setattr(bucket, "_upload", upload)
    for number, worker in enumerate(workers):
        (worker.directory / "frozen").mkdir(parents=True)
        (worker.directory / "frozen" / SHARED).write_bytes(b"the whole stem")
        write_model(worker, number, SHARED)
        worker.push(f"trials/{number}")
        worker.push(f"trials/{number}")
    assert sent.count(f"frozen/{SHARED}") == 1
    assert sent.index(f"frozen/{SHARED}") < sent.index("trials/0/best/checkpoint.json")
    driver = Mirror(uri=uri, directory=tmp_path / "driver")
    take = bucket._download

    def download(system: object, key: str, path: Path) -> None:
        fetched.append(key.rpartition("runs/one/")[2])
        take(system, key, path)

    monkeypatch.setattr(bucket, "_download", download)
    driver.pull("trials/0/best")
    driver.pull("trials/1/best")
    assert (driver.directory / "frozen" / SHARED).read_bytes() == b"the whole stem"
    assert fetched.count(f"frozen/{SHARED}") == 1
    driver.push_own()  # the driver's own files are other ones
    driver.push("trials/1")
    assert f"frozen/{SHARED}" in keys(store, uri)
    other = Mirror(uri=uri, directory=tmp_path / "other")
    other.pull_own()  # a start on another machine, by several threads
    assert (other.directory / "frozen" / SHARED).is_file() and "frozen" not in other.parts()
    evict_trial(driver.directory / "trials/0")
    driver.push("trials/0")
    assert {"frozen/" + SHARED, "trials/1/best/checkpoint.json"} <= keys(store, uri)
    assert not {key for key in keys(store, uri) if key.startswith("trials/0/best")}
    driver.remove()
    assert keys(store, uri) == set()


def test_a_cut_connection_leaves_no_model_without_its_files(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Mirror(uri=uri, directory=tmp_path / "worker")
    (worker.directory / "frozen").mkdir(parents=True)
    (worker.directory / "frozen" / SHARED).write_bytes(b"the whole stem")
    write_model(worker, 0, SHARED)
    worker.push("trials/0")
    driver = Mirror(uri=uri, directory=tmp_path / "driver")
    take = bucket._download

    def cut(system: object, key: str, path: Path) -> None:
        take(system, key, path)
        if "frozen" in key:
            raise OSError("cut")

    with monkeypatch.context() as patch:
        patch.setattr(bucket, "_download", cut)
        with pytest.raises(StorageError, match="cut"):
            driver.pull("trials/0/best")
    assert not (driver.directory / "trials/0/best").exists() and not list((driver.directory / "frozen").iterdir())
    driver.pull("trials/0/best")
    assert (driver.directory / "frozen" / SHARED).is_file()


@pytest.mark.parametrize("name", ["../../outside.safetensors", "/outside.safetensors", "x.pth"])
def test_a_bucket_s_model_names_no_file_elsewhere(tmp_path: Path, uri: str, name: str) -> None:
    worker = Mirror(uri=uri, directory=tmp_path / "worker")
    write_model(worker, 0, name)
    worker.push("trials/0")
    driver = Mirror(uri=uri, directory=tmp_path / "deep/er/driver")
    driver.pull("trials/0/best")
    assert not (driver.directory / "frozen").exists() and not list(tmp_path.rglob("outside*"))
