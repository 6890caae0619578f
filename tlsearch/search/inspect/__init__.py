"""A search seen from outside: its status, and which parameters mattered."""
