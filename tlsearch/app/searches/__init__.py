"""Starts, resumes, repeats and synchronises searches."""
