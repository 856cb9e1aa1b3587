"""Coordinates, the telescope, catalogues, flux standards, model visibilities and gains."""
