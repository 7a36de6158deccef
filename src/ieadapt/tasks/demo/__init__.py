"""The demonstration on the bundled model."""
