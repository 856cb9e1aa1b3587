"""What every stage and command runs on: the contract, options, stores, manifests, child processes."""
