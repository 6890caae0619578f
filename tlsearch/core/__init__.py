"""What every room shares, without torch."""

from pathlib import Path

__version__ = "0.1.0"
PACKAGE = Path(__file__).parents[1]  # the folder of tlsearch, which is shipped to clusters and with models
