"""Files and images fetched over a network."""
