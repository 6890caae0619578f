"""What a user looks at: results, status, reports, predictions, the MLflow UI."""
