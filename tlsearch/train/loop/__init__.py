"""The training of an epoch, and the evaluation after it."""
