"""The DAGs, authored with Hera, and the local engine that walks them."""
