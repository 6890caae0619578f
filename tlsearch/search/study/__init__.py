"""The durable Optuna study, its storage and its lock."""
