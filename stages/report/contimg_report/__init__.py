"""The report stage: one page that says how it went."""
