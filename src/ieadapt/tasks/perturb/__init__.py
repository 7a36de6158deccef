"""Perturb: the same video with chosen attention maps replaced."""
