"""Asks a Ray head, in a process of its own, whether it takes this user's token, and whether it takes none.

Ray reads token and mode once per process and, with the wrong ones, tries for 20 s before it fails with a bare
ConnectionError. The head's own answer takes milliseconds.
Run as ``python -m tlsearch.search.cluster.auth_probe HOST:PORT``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Literal

from tlsearch.core.codec import from_plain, parse_json
from tlsearch.core.imports import own_python
from tlsearch.core.text import first_line, last_line
from tlsearch.search.cluster._private import check_alive

_MODE = "RAY_AUTH_MODE"
_TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_ANSWER_S = 5
_PROCESS_S = 60.0  # an interpreter that imports ray, on a busy machine


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the head said: ``joined``, ``refused`` (its authentication), or ``silent`` (no Ray head answers)."""

    kind: Literal["joined", "refused", "silent"]
    text: str = ""


def probe_head(address: str, *, with_token: bool = True) -> Answer:
    """The head's answer to this user, or (``with_token`` False) to anybody.

    Args:
        address: HOST:PORT, where something is known to listen.
    """
    environment = {name: os.environ.get(name, "") for name in list(os.environ)}  # other threads may change one
    if not with_token:
        environment = {name: value for name, value in environment.items() if name not in _TOKENS}
        environment[_MODE] = "disabled"
    command = own_python("tlsearch.search.cluster.auth_probe", address)
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_PROCESS_S, check=False)
        return from_plain(Answer, parse_json(done.stdout.splitlines()[-1], "the probe's answer", dict))
    except subprocess.TimeoutExpired:
        return Answer(kind="silent", text=f"no answer in {_PROCESS_S:g} s")
    except (IndexError, ValueError):
        return Answer(kind="silent", text=last_line(done.stderr, f"the probe ended with {done.returncode}"))


def refused(address: str, answer: str, authentication: str) -> str:
    """What to do about a cluster that requires another token, or one at all.

    Args:
        answer: What the cluster said.
        authentication: As ``settle_authentication`` tells it.
    """
    sent = f"{_MODE} is token" in authentication and "nowhere" not in authentication
    wrong = sent and any(word in answer.lower() for word in ("403", "failed", "invalid"))
    problem = "does not accept this token" if wrong else "requires a token"
    return (
        f"the cluster at {address} {problem} ({authentication}): set {_MODE}=token and put the cluster's token into a "
        "file named by RAY_AUTH_TOKEN_PATH, or into ~/.ray/auth_token"
    )


def _ask(address: str) -> Answer:
    from ray.exceptions import AuthenticationError

    try:
        check_alive(address, timeout_s=_ANSWER_S)
    except AuthenticationError as error:
        return Answer(kind="refused", text=first_line(error))
    except Exception as error:
        return Answer(kind="silent", text=first_line(error))
    return Answer(kind="joined")


if __name__ == "__main__":
    print(json.dumps(asdict(_ask(sys.argv[1]))))
