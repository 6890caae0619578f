"""Batch norm: folded into convolutions, and its statistics recalibrated."""
