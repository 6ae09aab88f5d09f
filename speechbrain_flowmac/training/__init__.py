"""Training: Brains, data, augmentation."""
