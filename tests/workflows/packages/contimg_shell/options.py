"""A program of a line of shell, which makes no artifact of the contract: the engine never finds it cached."""
