"""Cuts every family's model into stem, four stages and head."""
