"""The one place that joins search with tracking, and what the commands call."""
