"""The flag stage: finds unusable visibilities."""
