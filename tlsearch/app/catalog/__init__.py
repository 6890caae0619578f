"""The user's searches: where they are, and what belongs to each."""
