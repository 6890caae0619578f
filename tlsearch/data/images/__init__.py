"""From an image's bytes to a model's input: formats, decoding, preprocessing, augmentation."""
