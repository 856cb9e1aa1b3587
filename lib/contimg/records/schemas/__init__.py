"""The schemas of all tables, one module per table or family of tables."""
