"""The starter stage: the brightest pixel of an image."""
