"""What a trial gets of a cluster, and how authentication is settled; no Ray runs."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from tlsearch.config import ResourcesSpec
from tlsearch.core.errors import ClusterError
from tlsearch.search.cluster.connect import connected, settle_authentication, starting_ray
from tlsearch.search.ray_tune.resources import Room, settle_shares
from tlsearch.search.scheduling.packing import Shares, num_slots


def node(cpus: float, gpus: float = 0.0) -> dict[str, Any]:
    return {"Alive": True, "Resources": {"CPU": cpus, **({"GPU": gpus} if gpus else {})}}


@pytest.mark.parametrize(
    ("spec", "nodes", "share", "slots"),
    [
        (ResourcesSpec(), [node(2)], 0.0, 2),
        (ResourcesSpec(), [node(8, 2), node(8)], 1.0, 2),
        (ResourcesSpec(gpus_per_trial=0.5, cpus_per_trial=2), [node(8, 2), node(4, 4)], 0.5, 6),
        (ResourcesSpec(gpus_per_trial=0), [node(3, 1), node(4)], 0.0, 7),
        (ResourcesSpec(cpus_per_trial=2), [node(3), node(3)], 0.0, 2),
        (ResourcesSpec(gpus_per_trial=0.1), [node(64, 1)], 0.1, 10),
    ],
)
def test_slots(spec: ResourcesSpec, nodes: list[dict[str, Any]], share: float, slots: int) -> None:
    shares = Shares()
    settle_shares(shares, spec, nodes)
    assert shares.usual == share
    assert num_slots(float(spec.cpus_per_trial), share, nodes) == slots


def test_the_room_follows_the_cluster() -> None:
    nodes, now = [node(2)], [0.0]
    room = Room(ResourcesSpec(), 0.0, nodes=lambda: nodes, timer=lambda: now[0])

    def most() -> int:
        return next(count for count in range(20) if not room([0.0] * count, 0.0))

    assert most() == 2
    nodes.append(node(4))
    assert most() == 2  # not asked again at once
    now[0] = 6.0
    assert most() == 6
    nodes.clear()
    now[0] = 12.0
    assert most() == 1  # all nodes gone: one trial waits for them
    room = Room(ResourcesSpec(max_concurrent=3), 0.0, nodes=lambda: [node(8)])
    assert most() == 3


def test_a_cluster_that_holds_no_trial_is_an_error() -> None:
    with pytest.raises(ClusterError, match=r"1 CPUs and 1 GPUs; the cluster's nodes have 4 CPUs, 0 GPUs"):
        Room(ResourcesSpec(), 1.0, nodes=lambda: [node(4)])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_an_own_ray_gets_a_token_of_this_process(home: Path) -> None:
    import os

    assert settle_authentication("local") == "RAY_AUTH_MODE is token, token from RAY_AUTH_TOKEN"
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert not (home / ".ray").exists()


def test_a_cluster_without_a_token_at_hand_is_left_alone(home: Path) -> None:
    assert settle_authentication("10.0.0.1:6379") == "RAY_AUTH_MODE is not set, token from nowhere"


def test_a_token_file_turns_token_mode_on(home: Path) -> None:
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("abc")
    assert settle_authentication("auto") == f"RAY_AUTH_MODE is token, token from {home}/.ray/auth_token"


def test_what_the_user_says_stays(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert settle_authentication("local").startswith("RAY_AUTH_MODE is disabled")


def test_a_connection_that_is_shared_knows_the_dashboard(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.shutdown", pytest.fail)
    for found, expected in (("127.0.0.1:8265", "http://127.0.0.1:8265"), (None, "")):
        monkeypatch.setattr("ray._private.worker.get_dashboard_url", lambda found=found: found)
        with connected("local") as dashboard:
            assert dashboard == expected


def test_two_threads_of_a_process_do_not_share_a_connection(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray._private.worker.get_dashboard_url", lambda: None)
    refused: list[str] = []

    def join() -> None:
        for connection in (connected("local"), starting_ray("local")):
            with pytest.raises(ClusterError) as caught, connection:
                pass
            refused.append(str(caught.value))

    with starting_ray("local"), connected("local"), connected("local"):
        other = threading.Thread(target=join)
        other.start()
        other.join()
    assert len(refused) == 2 and all(one.startswith("another search is running in this process") for one in refused)
    with connected("local"):
        pass


@pytest.mark.parametrize("address", ["nonsense", "ray://host:10001", "host:", ":6379", "http://host:8265"])
def test_an_address_has_a_form(home: Path, address: str) -> None:
    with pytest.raises(ClusterError, match="an address is local, auto or HOST:PORT"), connected(address):
        pass


def test_an_address_where_nothing_listens_is_found_at_once(home: Path) -> None:
    with pytest.raises(ClusterError, match="nothing answers at 127.0.0.1:1 "), connected("127.0.0.1:1"):
        pass
