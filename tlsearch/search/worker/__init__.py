"""A trial in its worker process; imports no Ray."""
