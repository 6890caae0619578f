"""What a data set holds and what is wrong with it: the data card, duplicates, readiness."""
