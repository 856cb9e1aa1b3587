"""Forced photometry of catalogue sources in one image."""
