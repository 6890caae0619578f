"""Which point a search tries next."""
