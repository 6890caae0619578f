"""Predictions of a trained model, from Python and served by MLflow."""
