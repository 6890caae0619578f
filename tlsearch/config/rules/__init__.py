"""The rules of a space file's values, and the errors of those that break them."""
