"""What the tests on a real cluster stand on: kubectl, an installation of the chart, simulated
groups, trouble."""
