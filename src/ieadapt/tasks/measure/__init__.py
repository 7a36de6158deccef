"""Measure: EP and energy of every attention site, and choices of sites by them."""
