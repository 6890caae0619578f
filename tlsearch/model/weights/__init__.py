"""Pretrained weights: found, fetched, read safely and matched to a backbone."""
