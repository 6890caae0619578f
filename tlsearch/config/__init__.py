"""space.yaml: safe YAML with places, a typed schema, all errors at once."""

from tlsearch.config.document.positions import Document, Keys
from tlsearch.config.document.wording import bucket_address, in_address, nearest, show, show_flow, suggest
from tlsearch.config.document.yaml_text import masked_yaml
from tlsearch.config.read_write import as_tree, dump_part, dump_resolved, parse_space_file
from tlsearch.config.rules.stores import missing_driver, with_driver
from tlsearch.config.schema import DefaultsSpec, ResourcesSpec, SpaceFile
from tlsearch.config.search_section import AshaSpec, ConstraintsSpec, Limit, SearchSpec
from tlsearch.core.text import one_of
