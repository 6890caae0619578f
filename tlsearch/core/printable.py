"""Names as a person can read them safely: codes for a terminal, a spreadsheet or a Markdown page are escaped.

The names of classes, files and searches come from elsewhere. They may hold line breaks, terminal escapes, marks that
turn the direction of writing, or bytes that are not UTF-8.
"""

from __future__ import annotations

import codecs
import csv
import io
import logging
import re
from collections.abc import Iterable, Sequence

from tlsearch.core.secrets import mask

# Control characters (C0, DEL, C1), invisible and direction marks, line separators, and lone surrogates. The joiners
# U+200C and U+200D stay: Persian, Indic scripts and emoji are written with them.
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
_HIDDEN_IN_LINES = re.compile(_HIDDEN.pattern.replace("\x00-\x1f", "\x00-\x09\x0b-\x1f"))
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_PLAIN = {"±": "+-", "…": "...", "–": "-", "—": "-", "→": "->", "·": "|", "≥": ">=", "≤": "<=", "×": "x"}

# What spreadsheets take for the start of a formula (the wide forms too, in some languages) or skip before one.
_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
# Marks of Markdown, and what GitHub makes a link of without any mark.
_MARKS = re.compile(r"[\\`*_{}\[\]<>()#+!|~$&]|:(?=//)|(?<=www)\.", re.IGNORECASE)
_LIST_ITEM = re.compile("^([0-9]*)([-=.])")

ENCODING_ERRORS = "tlsearch_printable"  # for streams read by people
ENCODING_BYTES = "tlsearch_bytes"  # for data: a byte of a file's name stays that byte


def printable(text: str) -> str:
    r"""The text in one line: shows a line break as ``\n``, an escape as ``\x1b``, a byte out of UTF-8 as ``\xe9``."""
    return _HIDDEN.sub(_escaped, text)


def printable_lines(text: str) -> str:
    """As `printable`, but line breaks stay."""
    return _HIDDEN_IN_LINES.sub(_escaped, text)


def markdown_text(text: str) -> str:
    """The text as Markdown shows it letter by letter, in one line: no markup, link, image, HTML or table cell."""
    escaped = _MARKS.sub(r"\\\g<0>", printable(text))
    return _LIST_ITEM.sub(r"\1\\\2", escaped)


def markdown_code(text: str) -> str:
    """The text as code in Markdown, in one line, whatever is in it; not for cells of a table."""
    shown = printable(" ".join(text.split()))
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    return f"{fence} {shown} {fence}" if "`" in shown else f"{fence}{shown}{fence}"


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as CSV that a spreadsheet shows as it is: text that would be a formula begins with an apostrophe.

    Numbers, and text that is a plain number, stay as they are. ``from_cell`` gives the text again.
    """
    text = io.StringIO()
    plain, quoted = (csv.writer(text, lineterminator="\n", quoting=q) for q in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    for row in (header, *rows):
        cells = [_cell(value) for value in row]
        lone = any(isinstance(cell, str) and "\r" in cell for cell in cells)  # csv itself leaves a CR unquoted
        (quoted if lone else plain).writerow(cells)
    return text.getvalue()


def from_cell(cell: str) -> str:
    """The text of a cell that `csv_text` wrote, or a spreadsheet whose user made a formula text by an apostrophe."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _cell(value: object) -> object:
    formula = isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value)
    return f"'{value}" if formula else value


class PrintableFormatter(logging.Formatter):
    """Log lines for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The record with secrets masked, and codes that a terminal would obey escaped."""
        return printable_lines(mask(super().format(record)))

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Messages of tlsearch as commands print theirs, ``warning: ...``: a module's name says nothing to a user."""
        own = record.name.split(".")[0] == "tlsearch"
        return f"{record.levelname.lower()}: {record.message}" if own else super().formatMessage(record)


def _escaped(match: re.Match[str]) -> str:
    return _SHORT.get(match[0]) or _code(match[0])


def _code(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # how Python keeps a byte of a file's name that is not UTF-8
        return f"\\x{number - 0xDC00:02x}"
    if number < 0x80:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _show(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    wrong = error.object[error.start : error.end]
    return "".join(_PLAIN.get(one) or _code(one) for one in wrong), error.end


def _keep_bytes(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    number = ord(error.object[error.start])
    if 0xDC80 <= number <= 0xDCFF:
        return bytes([number - 0xDC00]), error.start + 1
    return _code(error.object[error.start]), error.start + 1


codecs.register_error(ENCODING_ERRORS, _show)
codecs.register_error(ENCODING_BYTES, _keep_bytes)
