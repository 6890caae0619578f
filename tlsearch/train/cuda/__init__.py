"""What only a training on CUDA needs."""
