"""Tables and their schemas, and the records, files and registries that stages share."""
