"""Secrets are masked in every text, whatever form it has."""

from __future__ import annotations

import json
import os
import random
import traceback
from collections import UserDict

import pytest
from secret_urls import SecretUrl, secret_url

from tlsearch.config import masked_yaml
from tlsearch.core import secrets
from tlsearch.core.secrets import holds_secret, mask, mask_tree, remember


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://u:pa/ss@h/db failed", "postgresql://u:***@h/db failed"),
        ("postgresql://u:12/34@h/db", "postgresql://u:***@h/db"),
        ("postgresql://u:pa ss@h/db failed", "postgresql://u:***@h/db failed"),
        ("postgresql://u:p@ss@h/db", "postgresql://u:***@h/db"),
        ("postgresql://u:p@s s@h/db", "postgresql://u:***@h/db"),
        ("postgresql://u:p#a?b%c[d]e@h:5432/db", "postgresql://u:***@h:5432/db"),
        ("postgresql://u:a%2Fb%20c@h1:1,h2:2/db?target=x", "postgresql://u:***@h1:1,h2:2/db?target=x"),
        ("jdbc:postgresql://u:p@h/d", "jdbc:postgresql://u:***@h/d"),
        ("https://TOKEN@host/x", "https://***@host/x"),
        ("https://tok/en@host/x", "https://***@host/x"),
        ("https://TOKEN:x-oauth-basic@host.org", "https://***@host.org"),
        ("git+https://TOKEN@host.org/a.git", "git+https://TOKEN@host.org/a.git".replace("TOKEN", "***")),
        ("https://host.org/x@main", "https://host.org/x@main"),
        ("http://mlflow:5000 does not answer; mail ann@x.org", "http://mlflow:5000 does not answer; mail ann@x.org"),
        ("http://[::1]:5000/x", "http://[::1]:5000/x"),
        ("s3://bucket/a@b/c", "s3://bucket/a@b/c"),
        ("s3://KEY:SECRET@bucket/x", "s3://***@bucket/x"),
        ("sqlite:////home/a@b/x.db", "sqlite:////home/a@b/x.db"),
        ("sqlite:///x.db?password=abc&mode=ro", "sqlite:///x.db?password=***&mode=ro"),
        ("https://h/x?X-Amz-Signature=abc&a=b", "https://h/x?X-Amz-Signature=***&a=b"),
        ("https://h/x?a=b&TOKEN=abc#access_token=zz", "https://h/x?a=b&TOKEN=***#access_token=***"),
        ("https://h/x?password=a b&c=d", "https://h/x?password=***&c=d"),
        ("mssql+pyodbc:///?odbc_connect=DRIVER%3D%7BODBC%7D%3BPWD%3Dsecr3t", "mssql+pyodbc:///?odbc_connect=***"),
        ("DRIVER={ODBC Driver 18};PWD=a b c;UID=u", "DRIVER={ODBC Driver 18};PWD=***;UID=u"),
        ("host=h user=u password='a b' dbname=x", "host=h user=u password=*** dbname=x"),
        ('{"password": "a\\"b", "x": 1}', '{"password": "***", "x": 1}'),
        ("Authorization: Basic dTpw", "Authorization: Basic ***"),
        ("{'Authorization': 'Bearer abc.def'}", "{'Authorization': 'Bearer ***'}"),
        ("Basic authentication, tokens and keys", "Basic authentication, tokens and keys"),
        ("back=https%3A%2F%2Fu%3Ap%40h", "back=https%3A%2F%2F***%40h"),
        ('"uri": "http:\\/\\/u:p@h\\/x"', '"uri": "http:\\/\\/***@h\\/x"'),
        ("two postgresql://a:b@c/d and mysql://e:f@g/h.", "two postgresql://a:***@c/d and mysql://e:***@g/h."),
        ("a study is postgresql:// or mysql://, not 'x'", "a study is postgresql:// or mysql://, not 'x'"),
        ("models:/name@alias", "models:/name@alias"),
    ],
)
def test_a_text(text: str, masked: str) -> None:
    assert mask(text) == masked
    assert mask(masked) == masked and holds_secret(text) == (text != masked)


def texts(url: str) -> dict[str, str]:
    """The address in texts of many kinds."""
    try:
        raise RuntimeError(f"MLflow at {url} cannot be used: see {url!r}")
    except RuntimeError as error:
        trace = "".join(traceback.format_exception(error))
    return {
        "alone": url,
        "prose": f"the store {url} does not answer; the one at http://other:5000/ does",
        "several": f"{url} {url}, postgresql://a@b/c and {url}",
        "repr": f"not {url!r}",
        "json": json.dumps({"uri": url, "args": ["--store", url]}),
        "json lines": json.dumps({"uri": url, "args": [url]}, indent=2),
        "traceback": trace,
    }


@pytest.mark.parametrize("count", [10, pytest.param(1000, marks=pytest.mark.slow)])
def test_what_was_read_is_masked_in_every_text(count: int) -> None:
    for seed in range(count):
        secrets._remembered.clear()
        made = secret_url(random.Random(seed))
        remember(made.url)
        for name, text in texts(made.url).items():
            check(made, mask(text), f"seed {seed}, {name}: {text}")
        check(made, mask(f"could not translate host name {made.secret!r}"), f"seed {seed}")
        check(made, masked_yaml(f"tracking:\n  uri: {json.dumps(made.url)}\n"), f"seed {seed}, YAML")


@pytest.mark.parametrize("count", [10, pytest.param(1000, marks=pytest.mark.slow)])
def test_what_was_written_right_is_masked_unread(count: int) -> None:
    for seed in range(count):
        made = secret_url(random.Random(seed), encoded=True)
        for name, text in texts(made.url).items():
            check(made, mask(text), f"seed {seed}, {name}: {text}")
            assert mask(mask(text)) == mask(text), f"seed {seed}, {name}: {text}"


def check(made: SecretUrl, text: str, case: str) -> None:
    seen = [one for one in made.hidden if one in text]
    assert not seen, f"{case}\n{made}\n{text}"


def test_yaml_is_masked_as_it_is_read() -> None:
    text = (
        "# once postgresql://me:old-pw@host/db\n"
        "name: x\n"
        "tracking:\n"
        '  uri: "postgresql://me:p\\u0040s\\x20s@host/db"  # ours\n'
        "search:\n"
        "  study: >-\n"
        "    postgresql://me:first\n"
        "    second@host/db\n"
        "storage: ./runs\n"
    )
    shown = masked_yaml(text)
    assert not any(one in shown for one in ("old-pw", "p\\u0040s", "x20s", "first", "second"))
    assert "# ours" in shown and "storage: ./runs" in shown and shown.count("postgresql://me:***@host/db") == 3
    assert masked_yaml("a: [") == "a: [" and masked_yaml("x: 1 # plain\n") == "x: 1 # plain\n"


def test_variables_named_as_secrets_and_addresses_in_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "hunter-2x")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://u:en%2Fcoded7@host.org")
    monkeypatch.setenv("SOME_TOKEN", "on")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/home/me/token1")
    assert mask("hunter-2x en%2Fcoded7 en/coded7") == "*** *** ***"
    assert mask("on /home/me/token1 hunter-2xy") == "on /home/me/token1 hunter-2xy"
    assert mask_tree({"a": ["hunter-2x", 1], "b": None}) == {"a": ["***", 1], "b": None}


def test_words_that_are_passwords_stay_words_elsewhere() -> None:
    remember("postgresql://test:test@localhost/test", "postgresql://postgres:postgres@h/db")
    assert mask("the test split of postgresql://test:test@localhost/test") == (
        "the test split of postgresql://test:***@localhost/test"
    )


def test_a_hostile_text_costs_little() -> None:
    for piece in ("a://", "token", "%3A%2F%2F", "password=", "x@", "&key", '"token', "Basic 1", "a:b@", "://u:p"):
        mask(piece * (200_000 // len(piece)))


def test_masking_goes_on_while_another_thread_changes_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    class Changing(UserDict[str, str]):
        """A variable is gone once its name has been listed."""

        def __getitem__(self, name: str) -> str:
            raise KeyError(name)

    monkeypatch.setattr(os, "environ", Changing(SOME_TOKEN="of-a-thread"))
    assert secrets.mask("plain text") == "plain text"
