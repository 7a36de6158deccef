"""Evaluate: scores of videos, alone and paired."""
