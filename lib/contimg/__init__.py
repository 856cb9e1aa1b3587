"""Shared types and conventions used by every stage."""
