"""The life cycle of runs: claim, begin, record, sweep and select."""
