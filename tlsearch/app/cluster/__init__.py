"""Submits searches to a cluster, and asks its head about them."""
