"""Maps: where tokens look, at one attention site."""
