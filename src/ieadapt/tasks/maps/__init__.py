"""Attention maps of asked rows: recorded, worded, drawn."""
