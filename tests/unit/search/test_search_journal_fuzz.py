"""However a journal is damaged: it is read as it was written, or refused with its file and line."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from search_doubles import drive, make_plan

from tlsearch.core.errors import StorageError
from tlsearch.core.layout import SearchFolder
from tlsearch.search import read_search
from tlsearch.search.study.storage import open_for_writing

Mutation = Callable[[random.Random, list[bytes]], bytes]
ODD: tuple[Any, ...] = (None, True, -1, 0, 3, 11, 2**63, 1e308, float("nan"), "", "x", [], {}, [[]], {"a": 1}, "0")


def _join(lines: list[bytes]) -> bytes:
    return b"".join(lines)


def _at(rng: random.Random, lines: list[bytes]) -> int:
    return rng.randrange(len(lines))


def _flip(rng: random.Random, lines: list[bytes]) -> bytes:
    data = bytearray(_join(lines))
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _insert(rng: random.Random, lines: list[bytes]) -> bytes:
    data = _join(lines)
    place = rng.randrange(len(data))
    return data[:place] + rng.randbytes(rng.randint(1, 9)) + data[place:]


def _lose_bytes(rng: random.Random, lines: list[bytes]) -> bytes:
    data = _join(lines)
    place = rng.randrange(len(data))
    return data[:place] + data[place + rng.randint(1, 5000) :]


def _lose_lines(rng: random.Random, lines: list[bytes]) -> bytes:
    place = _at(rng, lines)
    return _join(lines[:place] + lines[place + rng.randint(1, 3) :])


def _double(rng: random.Random, lines: list[bytes]) -> bytes:
    place = _at(rng, lines)
    return _join(lines[: place + 1] + lines[place:])


def _swap(rng: random.Random, lines: list[bytes]) -> bytes:
    a = _at(rng, lines)
    b = min(a + 1, len(lines) - 1) if rng.random() < 0.5 else _at(rng, lines)
    lines[a], lines[b] = lines[b], lines[a]
    return _join(lines)


def _digit(rng: random.Random, lines: list[bytes]) -> bytes:
    data = bytearray(_join(lines))
    data[rng.choice([place for place, byte in enumerate(data) if 48 <= byte < 58])] = rng.randrange(48, 58)
    return bytes(data)


def _edit(rng: random.Random, lines: list[bytes]) -> bytes:
    """Valid JSON with another value, key or layout."""
    place = _at(rng, lines)
    log = json.loads(lines[place])
    key = rng.choice(sorted(log))
    change = rng.choice(("value", "lost", "more", "layout", "inner"))
    if change == "inner" and isinstance(log[key], dict) and log[key]:
        log[key][rng.choice(sorted(log[key]))] = rng.choice(ODD)
    elif change == "lost":
        del log[key]
    elif change == "more":
        log[rng.choice(("study_id", "trial_id", "state", "other"))] = rng.choice(ODD)
    elif change == "layout":
        log = dict(sorted(log.items()))
    else:
        log[key] = rng.choice(ODD)
    lines[place] = json.dumps(log).encode() + b"\n"
    return _join(lines)


def _nul(rng: random.Random, lines: list[bytes]) -> bytes:
    data = bytearray(_join(lines))
    place, size = rng.randrange(len(data)), rng.choice((1, 512, 4096))
    data[place : place + size] = bytes(len(data[place : place + size]))
    return bytes(data)


def _cut(rng: random.Random, lines: list[bytes]) -> bytes:
    data = _join(lines)
    return data[: rng.randrange(len(data))]


def _cut_lines(rng: random.Random, lines: list[bytes]) -> bytes:
    return _join(lines[: rng.randrange(len(lines))])


def _append(rng: random.Random, lines: list[bytes]) -> bytes:
    more = (b"\n", b"{}\n", bytes(4096), bytes(64) + b"\n", lines[-1], b'{"op_code":4', b"[" * 10**5 + b"\n", b"[]\n")
    return _join(lines) + rng.choice(more)


def _deep(rng: random.Random, lines: list[bytes]) -> bytes:
    lines[_at(rng, lines)] = b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"\n"
    return _join(lines)


def _stranger(rng: random.Random, lines: list[bytes]) -> bytes:
    """A line of another search's journal."""
    line = b'{"op_code":9,"worker_id":"w","trial_id":0,"system_attr":{"a":1},"crc32":"%08x"}\n' % rng.getrandbits(32)
    lines.insert(_at(rng, lines), line)
    return _join(lines)


def _line_ends(rng: random.Random, lines: list[bytes]) -> bytes:
    return _join(lines).replace(b"\n", b"\r\n")


def _bom(rng: random.Random, lines: list[bytes]) -> bytes:
    return b"\xef\xbb\xbf" + _join(lines)


def _last_newline(rng: random.Random, lines: list[bytes]) -> bytes:
    return _join(lines)[:-1]


HARMLESS = (_line_ends, _bom, _last_newline)
HARMFUL = (
    _flip,
    _insert,
    _lose_bytes,
    _lose_lines,
    _double,
    _swap,
    _digit,
    _edit,
    _nul,
    _cut,
    _cut_lines,
    _append,
    _deep,
    _stranger,
)
MUTATIONS: tuple[Mutation, ...] = (*HARMFUL, *HARMFUL, *HARMLESS)


def told(root: Path) -> list[Any]:
    """All that the study says of its trials."""
    return list(read_search(root).trials)


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fuzz") / "s"
    drive(make_plan(root, trials=5, max_epochs=3), slots=2)
    return root


def without_sums(journal: bytes) -> bytes:
    """As versions wrote it that had no checksums."""
    return re.sub(rb',"crc32":"[0-9a-f]{8}"\}', b"}", journal)


def _examine(search: Path, place: Path, seed: int, *, killed: bool) -> str:
    """Reads one mutant, then opens it for writing; gives what became of it.

    Args:
        killed: The search's last process was killed, so that its end may be missing.
    """
    rng = random.Random(seed)
    folder = SearchFolder(root=place)
    original = (search / "study.journal").read_bytes()
    mutation = rng.choice(MUTATIONS)
    mutant = mutation(rng, original.splitlines(keepends=True))
    if killed:
        folder.lock.write_text("")
    else:
        shutil.copy(search / "lock", folder.lock)
    expected, about = told(search), f"seed {seed}: {mutation.__name__}"
    for opened in ("reading", "writing"):
        folder.journal.write_bytes(mutant)
        try:
            if opened == "writing":
                open_for_writing(folder, attrs={"search_id": "s"}).close()
            found = told(place)
        except StorageError as error:
            assert mutation not in HARMLESS, f"{about}: {error}"
            assert re.search(r"line \d+", str(error)) and str(folder.journal) in str(error), f"{about}: {error}"
            result = "refused"
        else:
            cut = killed and original.startswith(mutant[: mutant.rfind(b"\n") + 1])
            assert found == expected or cut, f"{about}: a journal that says something else was read"
            result = "read"
    for torn in place.glob("*.torn-*"):
        torn.unlink()
    return result


def _fuzz(search: Path, place: Path, seeds: range) -> None:
    seen = {_examine(search, place, seed, killed=seed % 2 == 1) for seed in seeds}
    assert seen == {"read", "refused"}


def test_twenty_mutated_journals(search: Path, tmp_path: Path) -> None:
    _fuzz(search, tmp_path, range(20))


@pytest.mark.slow
def test_two_thousand_mutated_journals(search: Path, tmp_path: Path) -> None:
    _fuzz(search, tmp_path, range(2000))


@pytest.mark.parametrize("count", [20, pytest.param(1000, marks=pytest.mark.slow)])
def test_mutated_journals_without_checksums_are_read_or_refused(search: Path, tmp_path: Path, count: int) -> None:
    lines = without_sums((search / "study.journal").read_bytes()).splitlines(keepends=True)
    (tmp_path / "study.journal").write_bytes(_join(lines))
    assert told(tmp_path) == told(search)
    for seed in range(count):
        rng = random.Random(seed)
        mutation = rng.choice(MUTATIONS)
        (tmp_path / "study.journal").write_bytes(mutation(rng, list(lines)))
        try:
            told(tmp_path)
        except StorageError:
            continue
        except Exception as error:
            raise AssertionError(f"seed {seed}: {mutation.__name__}: {error!r}") from error


def test_a_line_that_a_journal_without_checksums_lost_is_noticed(search: Path, tmp_path: Path) -> None:
    """Of a trial's reports and values, its creation and its states; what only it says (a parameter) is lost."""
    lines = without_sums((search / "study.journal").read_bytes()).splitlines(keepends=True)
    for place, line in enumerate(lines[:-1]):
        log = json.loads(line)
        if log["op_code"] in (0, 4, 7) or any(key.startswith("report:") for key in log.get("user_attr", {})):
            (tmp_path / "study.journal").write_bytes(_join(lines[:place] + lines[place + 1 :]))
            with pytest.raises(StorageError):
                told(tmp_path)


def test_a_journal_without_checksums_has_them_from_its_next_start_on(search: Path, tmp_path: Path) -> None:
    folder = SearchFolder(root=tmp_path)
    before = without_sums((search / "study.journal").read_bytes())
    folder.journal.write_bytes(before)
    study = open_for_writing(folder, attrs={"search_id": "s"})
    study.note_space_tried()
    study.close()
    assert folder.journal.read_bytes().startswith(before) and told(tmp_path) == told(search)
    folder.journal.write_bytes(folder.journal.read_bytes().replace(b'"seq":1', b'"seq":2', 1))
    with pytest.raises(StorageError, match="line"):
        told(tmp_path)
