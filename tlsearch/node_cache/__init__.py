"""The cache of a node on its disk: where it is, how an entry is written, kept while it is read, and evicted."""
