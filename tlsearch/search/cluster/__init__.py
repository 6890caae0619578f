"""Connections to a Ray cluster, and jobs submitted to it."""
