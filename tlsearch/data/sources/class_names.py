"""Names of classes: one spelling for each, and those that nearly agree.

A name has several Unicode forms: macOS writes ``é`` as a letter and an accent (NFD), others as one letter (NFC). Both
are one class here, called by its NFC form.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

_JOINERS = "\u200c\u200d"  # Persian, Indic scripts and emoji are written with them


@dataclass(frozen=True, kw_only=True)
class Classes:
    """The classes of a data set, in their order.

    Attributes:
        names: In NFC, each once.
        spellings: As the data write them, where that is one way; else as ``names``. Their order and the digest go by
            these, so that data written in NFD keep both from version to version.
    """

    names: tuple[str, ...]
    spellings: tuple[str, ...]


def nfc(name: str) -> str:
    """The name in its composed form."""
    return unicodedata.normalize("NFC", name)


def gather_classes(written: Iterable[str]) -> Classes:
    """The classes of all names that data write, sorted."""
    forms: dict[str, set[str]] = defaultdict(set)
    for one in written:
        forms[nfc(one)].add(one)
    spelled = sorted((next(iter(ways)) if len(ways) == 1 else name, name) for name, ways in forms.items())
    return Classes(names=tuple(name for _, name in spelled), spellings=tuple(spelling for spelling, _ in spelled))


def same_classes(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two lists have the same classes in the same order, in whatever Unicode form."""
    return [nfc(name) for name in one] == [nfc(name) for name in other]


def near_equal(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of names that people take for one: they differ in case, blanks, widths or hidden characters."""
    groups: Mapping[str, list[str]] = defaultdict(list)
    for name in names:
        groups[_key(name)].append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def has_hidden(name: str) -> bool:
    """Whether a name has blanks at an end, or characters that do not show."""
    return name != name.strip() or any(_is_hidden(one) and one not in _JOINERS for one in name)


def name_notes(names: Sequence[str]) -> list[str]:
    """Lines for the data card about names that are easily mistaken."""
    groups = near_equal(names)
    notes = [f"class names that nearly agree: {' and '.join(repr(name) for name in group)}" for group in groups]
    near = {name for group in groups for name in group}
    if odd := [name for name in names if name not in near and has_hidden(name)]:
        notes.append(f"class names with blanks at an end or hidden characters: {', '.join(repr(one) for one in odd)}")
    return notes


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp") or (character != " " and character.isspace())


def _key(name: str) -> str:
    plain = "".join(" " if one.isspace() else one for one in name if one.isspace() or not _is_hidden(one))
    return " ".join(unicodedata.normalize("NFKC", plain).casefold().split())
