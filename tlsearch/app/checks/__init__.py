"""What can be known before a trial is spent."""
