"""Editing: inversion, the editor, and what ties source and target together."""
