"""Methods compared on held-out scenes of a bundled model, where the truth is known."""
