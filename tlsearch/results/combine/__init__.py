"""Trials combined: selection of ensembles on kept predictions, and what it is worth by cross-fitting."""
