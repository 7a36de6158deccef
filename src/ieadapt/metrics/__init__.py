"""Measures and their uncertainty: pure functions, each with its definition, range and direction of better."""
