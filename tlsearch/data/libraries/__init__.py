"""Data sets that a library holds: torchvision's, and those of the Hugging Face Hub."""
