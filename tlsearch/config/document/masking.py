"""A space file's text without its secrets, for those who may read the search and not its stores."""

from __future__ import annotations

import json
from collections.abc import Iterator

import yaml

from tlsearch.config.document.loader import compose
from tlsearch.core.secrets import mask, remember


def masked_yaml(text: str) -> str:
    """The text with secrets masked, and all else, comments too, as it was written.

    A value is masked as YAML reads it: it may be folded over lines, or hold escapes.
    """
    node, _ = compose(text, "")
    scalars = list(_scalars(node)) if node is not None else []
    remember(*(one.value for one in scalars))
    parts, at = [], 0
    for scalar in scalars:
        begin, end = scalar.start_mark.index, scalar.end_mark.index
        if begin >= at and (shown := mask(scalar.value)) != scalar.value:
            gap = text[begin:end][len(text[begin:end].rstrip()) :]  # what ends a block
            parts += [text[at:begin], json.dumps(shown, ensure_ascii=False), gap]
            at = end
    return mask("".join([*parts, text[at:]]))


def _scalars(root: yaml.Node) -> Iterator[yaml.ScalarNode]:
    """Each once, in the order of the text."""
    seen: set[int] = set()
    waiting, found = [root], []
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            found.append(node)
        elif isinstance(node, yaml.MappingNode):
            waiting += [one for pair in node.value for one in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value
    return iter(sorted(found, key=lambda one: int(one.start_mark.index)))
