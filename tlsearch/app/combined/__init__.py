"""Models made of several trials of a search, and the members that they are made of."""
