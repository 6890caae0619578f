"""Doubles that are shipped for tests: replayed trials and an in-memory tracker."""
