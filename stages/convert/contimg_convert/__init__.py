"""A group of UVH5 subbands to one Measurement Set."""
