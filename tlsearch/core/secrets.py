"""Secrets in texts: found where addresses and settings hold them, and masked before a text leaves the process.

A text is masked in three ways. The parts of addresses that hold secrets are found by their place: user and password,
and the values of known query keys. Settings are found by their names: ``password=...``, ``Authorization: ...``. And
what the process knows to be secret, from the addresses that it has read and from its environment, is found anywhere,
raw or encoded: libraries quote parts of an address in messages of their own. Where a text can be read in two ways, more
is masked rather than less.
"""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import zip_longest
from typing import Any
from urllib.parse import quote, quote_plus, unquote, unquote_plus

MASK = "***"

# Here a user's name is not a secret, and helps in a message. Elsewhere it may be a token or the id of a key.
_DATABASES = frozenset({"postgresql", "postgres", "mysql", "mariadb", "mssql", "oracle", "cockroachdb"})
# Here the part before an @ is a secret even without a colon: https://TOKEN@host
_WEB = frozenset({"http", "https", "ws", "wss", "ftp", "ftps", "git"})

# Any name that holds one of these is a secret's, as is one of the short ones as a query's key.
_STRONG = (
    r"(?:password|passwd|passphrase|pwd|secret|token|signature|credential|odbc_connect"
    r"|api[_-]?key|access[_-]?key|private[_-]?key|account[_-]?key)[\w.\-]{0,40}"
)
_KEY = rf"(?:[\w.\-]{{0,40}}?{_STRONG}|sig|sas|key|auth|authorization|pass|pw|jwt|code)"
_ENDS = r"\s\"'<>`"  # what ends an address in a text

_SLASHES = re.compile(r":(?://|\\/\\/)(?!/)")
_WHOLE = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):(//)?")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*\Z")
_TOKEN = re.compile(rf"[^{_ENDS}]*")
_AUTHORITY = re.compile(rf"[^/\\?#{_ENDS}]*")
_HOST = re.compile(r"(?:[A-Za-z0-9_\-.]+|\[[0-9A-Fa-f:.%]+\])(?::\d{0,5})?[.,;:)\]}]*")
_KNOWN_HOST = re.compile(r"(?:localhost|[A-Za-z0-9_\-]+(?:\.[A-Za-z0-9_\-]+)+|\[[0-9A-Fa-f:.%]+\])(?::\d{0,5})?")
_HOST_AND_PATH = re.compile(r"@[\w.\-]+(?::\d+)?/")
_ENCODED = re.compile(r"(%3A(?:%2F){2})(?:(?!%40|%3A%2F)[^\s&\"'<>]){0,500}(%40)", re.IGNORECASE)
# A value with blanks is one where another setting follows.
_QUERY = re.compile(
    rf"((?:[?&#]|%3F|%26|&amp;){_KEY}(?:=|%3D))(?!\*\*\*)(?:[^&#\n\"'<>`]{{1,200}}(?=&[\w.\-]+=)|[^&#{_ENDS}]+)",
    re.IGNORECASE,
)
_NAME = re.compile(r"(?<![\w.\-])[\w.\-]+=")
_STRONG_NAME = re.compile(_STRONG, re.IGNORECASE)
_VALUE = re.compile(
    rf"(?!\*\*\*)(?:'[^'\n]*'|\"[^\"\n]*\"|\{{[^}}\n]*\}}"
    rf"|[^;&\n\"'<>`]{{1,200}}(?=;[\w ]{{1,40}}=)|[^&;,)\]}}{_ENDS}]+)"
)
_QUOTED = re.compile(
    rf"([\"'][\w.\-]{{0,40}}?{_STRONG}[\"']\s{{0,3}}[:=]\s{{0,3}})"
    r"(?:\"(?!\*\*\*)(?:[^\"\\\n]|\\.)*\"|'(?!\*\*\*)(?:[^'\\\n]|\\.)*')",
    re.IGNORECASE,
)
_HEADER = re.compile(
    r"(authorization[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?:(?:basic|bearer|digest)\s)?"
    r"|\b(?:basic|bearer)\s(?=[^\s\"']{0,200}[0-9=]))"
    r"(?!\*\*\*|(?:basic|bearer|digest)\s)[^\s\"']{4,}",
    re.IGNORECASE,
)
_LONGEST = 4000  # characters of an address

_SECRET_NAME = re.compile(r"PASSWORD|PASSWD|TOKEN|SECRET|CREDENTIAL|_KEY$|_PAT$")
_NAMES_A_FILE = re.compile(r"_(FILE|PATH|DIR|MODE|URL|URI)$")
_PIECE = re.compile(r"[^\s/@?#:&;,\[\]%=+\"'<>]+")
_SHORTEST, _SHORTEST_WORD = 6, 12  # shorter, or a shorter word of letters alone, would mask ordinary text

_remembered: set[str] = set()


def mask(text: str) -> str:
    """The text with every secret in it as ``***``, fit to be shown, logged or sent; masking again changes nothing."""
    return _mask(text, _known())


def _known() -> re.Pattern[str] | None:
    """All that this process knows to be secret; None where that is nothing."""
    known = frozenset(_remembered.union(*_environment()))
    return _pattern(known) if known else None


def _mask(text: str, known: re.Pattern[str] | None) -> str:
    if known:
        text = known.sub(MASK, text)
    if "://" in text or ":\\/\\/" in text:
        text = _mask_addresses(text)
    if "%3" in text:
        text = _ENCODED.sub(rf"\g<1>{MASK}\g<2>", text)
    if "=" in text or "%3" in text:
        text = _mask_settings(_QUERY.sub(rf"\g<1>{MASK}", text))
    if ":" in text or "=" in text:
        text = _QUOTED.sub(rf'\g<1>"{MASK}"', text)
    return _HEADER.sub(rf"\g<1>{MASK}", text)


def holds_secret(text: str) -> bool:
    """Whether a text must not be shown as it is, nor lie in a file that others may read."""
    return mask(text) != text


def mask_tree(value: Any) -> Any:
    """A tree of JSON with every text in it masked; keys stay."""
    return _mask_tree(value, _known())


def _mask_tree(value: Any, known: re.Pattern[str] | None) -> Any:
    if isinstance(value, str):
        return _mask(value, known)
    if isinstance(value, Mapping):
        return {key: _mask_tree(one, known) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_mask_tree(one, known) for one in value]
    return value


def remember(*values: str) -> None:
    """Has the secrets of addresses, each given whole, masked in all texts of this process from now on."""
    for value in values:
        _remembered.update(_secrets_of(value))


def _environment() -> Iterator[frozenset[str]]:
    """The secrets in this process's variables: those named so, and those in addresses."""
    for name in list(os.environ):  # copied at once: another thread may change a variable, as an import of MLflow does
        value = os.environ.get(name, "")
        if "://" in value:
            yield _secrets_of(value)
        elif _SECRET_NAME.search(name) and not _NAMES_A_FILE.search(name):
            yield _forms(value)


@lru_cache(maxsize=64)
def _pattern(known: frozenset[str]) -> re.Pattern[str]:
    """All known secrets, where they are not part of a longer word."""
    return re.compile("|".join(map(_alone, sorted(known, key=lambda one: (-len(one), one)))))


def _alone(secret: str) -> str:
    begin, end = ("(?<![A-Za-z0-9])", "(?![A-Za-z0-9])")
    return f"{begin if secret[0].isalnum() else ''}{re.escape(secret)}{end if secret[-1].isalnum() else ''}"


@lru_cache(maxsize=1024)
def _secrets_of(value: str) -> frozenset[str]:
    """The secrets of an address given whole, in all the forms in which a text may show them."""
    found: set[str] = set()
    begin = _WHOLE.match(value)
    if begin is None:
        return frozenset()
    scheme, slashes = begin.groups()
    if slashes:
        rest = value[begin.end() :]
        end = _end_of_user(scheme, rest, whole=True)
        if end > 0:
            user, _, password = rest[:end].partition(":")
            found |= {password} if _base(scheme) in _DATABASES else {rest[:end], user, password}
    for setting in re.split(r"[&#;]", value.partition("?")[2] or value.partition("#")[2]):
        name, _, secret = setting.partition("=")
        if re.fullmatch(_KEY, unquote(name), re.IGNORECASE):
            found.add(secret)
            found.update(one[2] for one in re.finditer(r"(?i)\b(pwd|password)=([^;]*)", unquote_plus(secret)))
    return frozenset().union(*(_forms(one) for one in found))


@lru_cache(maxsize=1024)
def _forms(secret: str) -> frozenset[str]:
    """A secret raw, decoded and encoded, and its pieces: a wrong address is quoted in pieces."""
    plain = {secret, unquote(secret), unquote_plus(secret), secret.strip("{}'\"")}
    forms = set(plain)
    for one in plain:
        forms |= {quote(one), quote(one, safe=""), quote_plus(one), html.escape(one), repr(one)[1:-1]}
        forms |= {json.dumps(one)[1:-1], json.dumps(one, ensure_ascii=False)[1:-1], *_PIECE.findall(one)}
    return frozenset(
        one for one in forms if len(one) >= (_SHORTEST_WORD if one.isalpha() else _SHORTEST) and one != MASK
    )


def _base(scheme: str) -> str:
    return scheme.lower().partition("+")[0]


def _mask_addresses(text: str) -> str:
    parts, at = [], 0
    found = list(_SLASHES.finditer(text))
    for slashes, following in zip_longest(found, found[1:]):
        begin = slashes.end()
        limit = min(begin + _LONGEST, following.start() if following else len(text))
        scheme = _SCHEME.search(text[max(at, begin - 40) : slashes.start()])
        if scheme is None:
            continue  # also inside of what has been masked
        end = _end_of_user(scheme[0], text[begin:limit], whole=False)
        if end > 0:
            user, colon, _ = text[begin : begin + end].partition(":")
            shown = user if _base(scheme[0]) in _DATABASES else ""
            parts += [text[at:begin], f"{shown}:{MASK}" if shown and colon else shown or MASK]
            at = begin + end
    return "".join([*parts, text[at:]])


def _mask_settings(text: str) -> str:
    parts, at = [], 0
    for name in _NAME.finditer(text):
        if name.start() < at or not _STRONG_NAME.search(name[0]):
            continue
        value = _VALUE.match(text, name.end())
        if value is not None:
            parts += [text[at : name.end()], MASK]
            at = value.end()
    return "".join([*parts, text[at:]])


def _end_of_user(scheme: str, rest: str, *, whole: bool) -> int:
    """Where in the text after ``scheme://`` the user and password end, at an @; -1 where there are none.

    Passwords that should have been encoded may hold anything: a slash, a blank, another @.

    Args:
        whole: The text is the address and nothing else.
    """
    base, end = _base(scheme), -1
    authority = _AUTHORITY.match(rest)
    token = _TOKEN.match(rest)
    assert authority is not None and token is not None
    first, near = authority[0], rest if whole else token[0]
    if base in _DATABASES or "@" in first or not _KNOWN_HOST.fullmatch(first):
        end = near.rfind("@")
    line = rest.partition("\n")[0]
    tail = near[end + 1 :]
    unfinished = (
        bool(first) and not _HOST.fullmatch(first)
        if end < 0
        else "/" not in tail and bool(_HOST_AND_PATH.search(line, end + 1))
    )
    if not whole and unfinished and len(line) > len(near):
        end = max(end, line.rfind("@"))
    if base in _WEB or base in _DATABASES or ":" in rest[: max(end, 0)]:
        return end
    return -1
