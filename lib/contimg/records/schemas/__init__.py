"""The schemas of all tables, one module a table; import them from their modules, such as ``contimg.records.schemas.photometry``."""
