"""Logged models, registered versions, and what lies beside them in MLflow."""
