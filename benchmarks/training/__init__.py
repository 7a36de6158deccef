"""The recipe that trains the models of the test bed; see `benchmarks/training/README.md`."""
