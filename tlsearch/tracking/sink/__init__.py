"""Records a search in MLflow while it runs."""
