"""The base of every stage and command: contract, options, stores, manifests, child processes."""
