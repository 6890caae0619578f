"""The looks at a test split that an experiment has on record, as tags of the experiment."""

from __future__ import annotations

import json

from tlsearch.codec import parse_json
from tlsearch.tracking.store import connect, errors_told, find_experiment, open_experiment

_TEST_USE = "tlsearch.test_use."
_MAX_TAG = 5000


def read_test_uses(uri: str, *, experiment: str, digest: str) -> list[dict[str, object]]:
    """The looks at a test split that the experiment has on record, oldest first.

    Raises:
        TrackingError: MLflow cannot be reached.
    """
    with errors_told(uri):
        client = connect(uri)
        found = find_experiment(client, experiment, uri)
        text = found.tags.get(_TEST_USE + digest[:16]) if found else None
        return parse_json(text, f"the record of the test split's use in {uri}", list) if text else []


def write_test_uses(uri: str, *, experiment: str, digest: str, uses: list[dict[str, object]]) -> None:
    """Puts the looks at a test split on record; where a tag cannot hold all, the oldest and the newest.

    Raises:
        TrackingError: MLflow cannot be reached.
    """
    kept = list(uses)
    while len(text := json.dumps(kept, separators=(",", ":"))) > _MAX_TAG and len(kept) > 2:
        del kept[1]
    with errors_told(uri):
        client = connect(uri)
        client.set_experiment_tag(open_experiment(client, experiment, uri), _TEST_USE + digest[:16], text)
