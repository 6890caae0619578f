"""Formats that run without tlsearch."""
