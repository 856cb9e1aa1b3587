"""The flag stage: what must not be used."""
