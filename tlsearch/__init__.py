"""tlsearch: search for the best way to fine-tune a pretrained image classifier."""

__version__ = "0.1.0"
