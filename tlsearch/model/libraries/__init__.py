"""torchvision and timm: names, architectures, published transforms."""
