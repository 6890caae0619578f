"""What was probably meant where a space file is not valid YAML."""

from __future__ import annotations

import re

_ENTRY = re.compile(r"^(?P<start>\s*(?:- +)?(?P<key>[\w.@/-]+): +)(?P<value>\S.*?)\s*$")
_NO_BLANK = re.compile(r"^\s*(?:- +)?(?P<key>[A-Za-z_]\w*):(?P<value>[^\s:/\\][^\s]*)\s*$")


def yaml_hint(problem: str, lines: list[str], number: int) -> str:
    """How to write the line that YAML stumbled over; empty where that is not clear.

    Args:
        problem: In YAML's words.
        lines: Of the file.
        number: Of the line in question, from 0.
    """
    line = lines[number] if number < len(lines) else ""
    entry = _ENTRY.match(line.partition(" #")[0])
    if "unknown escape character" in problem:
        return r"; in double quotes a backslash begins an escape: use single quotes, as in 'C:\images', or slashes"
    if "mapping values are not allowed" in problem:
        if entry and re.search(r":(\s|$)", entry["value"]):
            return f"; a text with a colon is put in quotes: {entry['key']}: {_quoted(entry['value'])}"
        return "; keys of one section begin in the same column, and a key that has keys below it has no value"
    if "cannot start any token" in problem or "scanning an a" in problem or "undefined alias" in problem:
        return f"; a text that begins so is put in quotes: {entry['key']}: {_quoted(entry['value'])}" if entry else ""
    if "could not find expected ':'" in problem:
        for one in lines[max(0, number - 1) : number + 2]:
            if written := _NO_BLANK.match(one):
                return f"; a blank follows the colon: {written['key']}: {written['value']}"
    if "expected <block end>" in problem:
        if entry and entry["value"][0] in "[{\"'":
            return f"; such a text is put in quotes as a whole: {entry['key']}: {_quoted(entry['value'])}"
        if "'-'" in problem:
            return "; an entry of a list ('- ') stands below the key that it belongs to"
        return "; keys of one section begin in the same column"
    if "expected ',' or" in problem and "got ':'" in problem:
        return "; a text with a colon is put in quotes, and what is opened is closed"
    return ""


def _quoted(text: str) -> str:
    if text[0] == text[-1] == "'" and len(text) > 1:
        text = text[1:-1]
    return "'" + text.replace("'", "''") + "'"
