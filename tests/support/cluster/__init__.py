"""kubectl, an installation, simulated groups and trouble for tests on a real cluster."""
