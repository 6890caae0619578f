"""A space file as a document: safe YAML, the place of every key and value, overrides."""
