"""The relative flux scale of every epoch."""
