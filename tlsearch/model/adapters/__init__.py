"""Ways to adapt trainable stages by few parameters: low-rank updates, scales and shifts, biases, norms."""
