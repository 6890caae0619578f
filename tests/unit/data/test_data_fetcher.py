"""The fetcher: bounded in time and size, led astray by no host, whole files or none."""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path
from typing import Any

import pytest
from web_site import Site

from tlsearch.data.fetch import connection, fetcher
from tlsearch.data.fetch.connection import Limits, RefusedError
from tlsearch.data.fetch.fetcher import fetch_file, look

SMALL = Limits(max_bytes=10_000, total_s=60.0)
FILE = b"the file" * 100


def get(url: str, tmp_path: Path, limits: Limits = SMALL, **options: Any) -> bytes:
    fetch_file(url, tmp_path / "file", limits, **options)
    return (tmp_path / "file").read_bytes()


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.1 counts as a public address, the others of this machine do not."""
    real = connection._is_inside
    monkeypatch.setattr(connection, "_is_inside", lambda number: number != "127.0.0.1" and real(number))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "GRACE_S", 0.3)


@pytest.mark.parametrize("fault", ["drip", "silent head"])
def test_a_server_that_drips_is_given_up_once(site: Site, tmp_path: Path, quick: None, fault: str) -> None:
    site.files["/f"] = FILE
    site.faults = [fault]
    with pytest.raises(RefusedError, match=r"/f was given up: [\d,]+ bytes came in \d+ s"):
        get(f"{site.address}/f", tmp_path)
    assert len(site.asked) == 1
    assert list(tmp_path.glob("*")) == [], "nothing half-written is left"


def test_the_total_time_ends_a_server_that_is_fast_enough(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MIN_BYTES_PER_S", 0.001)
    site.files["/f"] = FILE
    site.faults = ["drip"]
    with pytest.raises(RefusedError, match="was given up"):
        get(f"{site.address}/f", tmp_path, Limits(max_bytes=10_000, total_s=0.3))


def test_a_look_at_a_server_that_drips_ends(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "_LOOK_S", 0.3)
    site.faults = ["silent head"]
    assert "was given up" in str(look(f"{site.address}/f"))
    fetcher.forget_silence()


def test_sizes_that_are_announced_or_sent(site: Site, tmp_path: Path) -> None:
    site.files["/f"] = b"x" * 10_001
    with pytest.raises(RefusedError, match="more than 1e-05 GB"):
        get(f"{site.address}/f", tmp_path)
    site.files["/f"] = FILE
    with pytest.raises(ConnectionError, match="ended after 800 of 801 bytes"):
        get(f"{site.address}/f", tmp_path, num_bytes=801)


def test_what_is_not_the_file_is_not_kept(site: Site, tmp_path: Path) -> None:
    site.files["/f"] = FILE
    (tmp_path / "file").write_bytes(b"before")
    with pytest.raises(RefusedError, match="/f is odd"):
        get(f"{site.address}/f", tmp_path, problem=lambda path: "is odd" if path.read_bytes() == FILE else "")
    with pytest.raises(RefusedError, match="should have the sha256 abc"):
        get(f"{site.address}/f", tmp_path, sha256="abc")
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_bytes() == b"before"
    assert get(f"{site.address}/f", tmp_path, sha256=hashlib.sha256(FILE).hexdigest()) == FILE


def test_redirections_are_followed_without_credentials(site: Site, tmp_path: Path) -> None:
    site.files["/b"] = FILE
    site.leads = {"/a": "/b", "/c": f"http://127.0.0.2:{site.port}/b"}
    token = {"Authorization": "Bearer secret"}
    assert get(f"{site.address}/a", tmp_path, headers=token) == FILE
    assert get(f"{site.address}/c", tmp_path, headers=token) == FILE, "the configured address is a private one itself"
    assert site.credentials == ["Bearer secret", "Bearer secret", "Bearer secret", None]
    site.leads["/b"] = "/a"
    with pytest.raises(RefusedError, match="leads on more than 5 times"):
        get(f"{site.address}/a", tmp_path)


def test_the_digest_that_the_hub_says_is_checked(site: Site, tmp_path: Path) -> None:
    site.files["/b"] = FILE
    site.leads = {"/a": "/b"}
    site.headers = {"X-Linked-Etag": f'"{hashlib.sha256(FILE).hexdigest()}"'}
    assert get(f"{site.address}/a", tmp_path) == FILE
    site.headers = {"X-Linked-Etag": f'"{hashlib.sha256(b"other").hexdigest()}"'}
    with pytest.raises(RefusedError, match="should have the sha256"):
        get(f"{site.address}/a", tmp_path)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("http://127.0.0.2:{port}/b", "inside of this machine or its network"),
        ("http://localhost.localdomain.test:{port}/b", "inside of this machine or its network"),
        ("http://169.254.169.254/latest/meta-data", "inside of this machine or its network"),
        ("http://[::1]:{port}/b", "inside of this machine or its network"),
        ("http://[::ffff:10.0.0.1]/b", "inside of this machine or its network"),
        ("http://2130706434:{port}/b", "inside of this machine or its network"),
        ("http://0x7f000002/b", "inside of this machine or its network"),
        ("file:///etc/passwd", "not the address of a file"),
        ("ftp://127.0.0.1/b", "not the address of a file"),
        ("http://user:word@127.0.0.1:{port}/b", "not the address of a file"),
    ],
)
def test_a_public_host_leads_nowhere_inside(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, public: None, target: str, message: str
) -> None:
    real = socket.getaddrinfo

    def resolve(host: Any, *rest: Any, **options: Any) -> Any:
        return real("127.0.0.2" if host == "localhost.localdomain.test" else host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    site.files["/b"] = FILE
    site.leads["/a"] = target.format(port=site.port)
    with pytest.raises(RefusedError, match=message) as caught:
        get(f"{site.address}/a", tmp_path)
    assert site.asked == ["/a"] and "word" not in str(caught.value)


def test_a_name_that_resolves_to_another_address_the_second_time(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, public: None
) -> None:
    real, asked = socket.getaddrinfo, []

    def resolve(host: Any, *rest: Any, **options: Any) -> Any:
        asked.append(host)
        public_once = asked.count("rebound.test") == 1
        return real({"rebound.test": "127.0.0.1" if public_once else "127.0.0.2"}.get(host, host), *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    site.files["/b"] = FILE
    site.leads["/a"] = f"http://rebound.test:{site.port}/b"
    with pytest.raises(RefusedError, match="leads to 127.0.0.2, inside of this machine"):
        get(f"{site.address}/a", tmp_path)


def test_nothing_leads_from_https_to_http() -> None:
    watch = connection.Watch(url="https://host.test/f", limits=SMALL)
    with pytest.raises(RefusedError, match="from https to http"):
        watch._check_step("https://host.test/f", "http://host.test/f", False)
    with pytest.raises(RefusedError, match="from https to http"):  # a private host of the user's own, too
        watch._check_step("https://host.test/f", "http://host.test/f", True)


@pytest.mark.parametrize(
    "number",
    [
        "127.0.0.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1",
        "255.255.255.255", "::1", "::", "fe80::1%eth0", "fd00:ec2::254", "fc00::1", "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "ff02::1",
    ],
)  # fmt: skip
def test_addresses_inside(number: str) -> None:
    assert connection._is_inside(number)


@pytest.mark.parametrize("number", ["1.1.1.1", "140.82.121.4", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_outside(number: str) -> None:
    assert not connection._is_inside(number)
