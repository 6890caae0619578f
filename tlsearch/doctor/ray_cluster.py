"""The doctor's look at a Ray cluster from outside: its address, its authentication, and then its nodes."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Callable

from tlsearch.core.errors import ClusterError
from tlsearch.core.types import Finding
from tlsearch.search.cluster._private import running_here
from tlsearch.search.cluster.auth_probe import Answer, probe_head, refused
from tlsearch.search.cluster.connect import check_address, settle_authentication
from tlsearch.search.cluster.jobs import check_http_address
from tlsearch.search.cluster.local_ray import ray_folder

_HTTP_S = 10.0
_OPEN_ADVICE = (
    "anybody who reaches it can run programs there: start head and workers with RAY_AUTH_MODE=token and one token"
)


def ray_findings(address: str, *, probe: Callable[..., Answer] = probe_head) -> list[Finding]:
    """Whether the cluster at ``address`` can be joined by this user alone.

    Args:
        address: ``local``, ``auto``, HOST:PORT, or ``http://HOST:PORT`` for submitting.
        probe: Asks the head; see ``probe_head``.
    """
    authentication = settle_authentication(address)
    if address == "local":
        return [_own_ray()]
    try:
        if "://" in address:
            check_http_address(address)
            return [Finding(name="ray", status="ok", text=f"{address} answers"), *_http(address, authentication)]
        if address == "auto":
            # As Ray means it: what is named, else the cluster that this machine belongs to.
            found = os.environ.get("RAY_ADDRESS") or next(iter(running_here()), None)
            if found is None:
                text = "no Ray runs on this machine, so `--address auto` has nothing to join"
                advice = "give HOST:PORT of the head, or `--address local` for an own Ray"
                return [Finding(name="ray", status="fail", text=text, advice=advice)]
            address = found
        check_address(address)
    except ClusterError as error:
        return [Finding(name="ray", status="fail", text=str(error))]
    return _head(address, authentication, probe)


def _own_ray() -> Finding:
    try:
        folder = ray_folder()
    except ClusterError as error:
        return Finding(name="ray", status="fail", text=str(error))
    return Finding(name="ray", status="ok", text=f"an own Ray is started for each search; its files are in {folder}")


def _head(address: str, authentication: str, probe: Callable[..., Answer]) -> list[Finding]:
    answer = probe(address)
    if answer.kind == "refused":
        return [Finding(name="ray", status="fail", text=refused(address, answer.text, authentication))]
    if answer.kind == "silent":
        return [
            Finding(
                name="ray",
                status="fail",
                text=f"something listens at {address}, but answers not as a Ray head: {answer.text}",
                advice="give the head's own port, by default 6379; 8265 is its dashboard, for `tlsearch submit`",
            )
        ]
    findings = [Finding(name="ray", status="ok", text=f"{address} can be joined ({authentication})")]
    if probe(address, with_token=False).kind == "joined":
        text = f"the head at {address} has authentication off"
        if "RAY_AUTH_MODE is token" in authentication:
            text += ", though this side has it on"
        findings.append(Finding(name="ray authentication", status="warn", text=text, advice=_OPEN_ADVICE))
    return findings


def _http(address: str, authentication: str) -> list[Finding]:
    """Authentication of the Jobs API: first as anybody, then with this user's token."""
    anybody = _http_status(f"{address.rstrip('/')}/api/version")
    if anybody == 200:
        text = f"the Jobs API at {address} has authentication off"
        return [Finding(name="ray authentication", status="warn", text=text, advice=_OPEN_ADVICE)]
    if anybody not in (401, 403):
        text = f"{address} is not a Ray dashboard: it answers {anybody}"
        return [Finding(name="ray authentication", status="fail", text=text, advice="its port is 8265 by default")]
    from tlsearch.search.cluster.jobs import Jobs

    try:
        Jobs(address)
    except ClusterError as error:
        return [Finding(name="ray authentication", status="fail", text=str(error))]
    return [Finding(name="ray authentication", status="ok", text=f"the token is taken ({authentication})")]


def _http_status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=_HTTP_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0
