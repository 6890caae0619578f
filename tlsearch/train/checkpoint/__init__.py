"""Model checkpoints in safetensors and JSON."""
