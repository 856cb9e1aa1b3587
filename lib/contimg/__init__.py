"""Nouns and rules that all rooms of the house share."""
