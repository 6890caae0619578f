"""Optimizer, learning-rate schedule and gradual unfreezing."""
