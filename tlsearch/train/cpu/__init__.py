"""What only a training on CPU needs."""
