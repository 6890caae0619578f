"""The backbones of torchvision and timm, as tables."""
