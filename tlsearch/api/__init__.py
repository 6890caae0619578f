"""The Python API: what ``import tlsearch`` offers to scripts and notebooks. See ``functions`` for the main job."""
