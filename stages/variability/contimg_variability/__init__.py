"""Light-curve statistics and the search for extreme scattering events."""
