"""Decoded images on disk, and images that are decoded at each read."""
