"""What a running search shows, on a terminal, in a notebook and in a log. Commands and the Python API share it."""
