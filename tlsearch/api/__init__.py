"""The Python API: what ``import tlsearch`` offers to scripts and notebooks. See ``searches`` for the main job."""
