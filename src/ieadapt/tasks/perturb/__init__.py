"""Perturb: every prompt as the model makes it, and with chosen attention maps replaced."""
