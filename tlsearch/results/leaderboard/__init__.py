"""The trials of a search as a leaderboard."""
