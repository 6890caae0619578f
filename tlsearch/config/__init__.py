"""space.yaml: safe YAML with places, a typed schema, all faults at once."""

from tlsearch.config.document import Document, Keys, Position
from tlsearch.config.dump import as_tree, dump_part, dump_resolved
from tlsearch.config.parse import load_space_file, parse_space_file
from tlsearch.config.rules import parse_duration
from tlsearch.config.schema import (
    AshaSpec,
    ConstraintsSpec,
    DefaultsSpec,
    Limit,
    Loaded,
    ResourcesSpec,
    SearchSpec,
    SpaceFile,
    TrackingSpec,
)
from tlsearch.config.words import bucket_address, nearest, one_of, show, suggest, without_password

__all__ = [
    "AshaSpec",
    "ConstraintsSpec",
    "DefaultsSpec",
    "Document",
    "Keys",
    "Limit",
    "Loaded",
    "Position",
    "ResourcesSpec",
    "SearchSpec",
    "SpaceFile",
    "TrackingSpec",
    "as_tree",
    "dump_part",
    "dump_resolved",
    "load_space_file",
    "nearest",
    "one_of",
    "parse_duration",
    "parse_space_file",
    "show",
    "suggest",
    "bucket_address",
    "without_password",
]
