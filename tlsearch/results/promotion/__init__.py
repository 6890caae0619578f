"""The sealed test split, what it says of a model, and the model card."""
