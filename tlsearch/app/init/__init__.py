"""A space file fitted to the data and the machine: what was seen, what follows from it, and the text."""
