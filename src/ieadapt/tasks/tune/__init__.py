"""Tune: race enhancements on half of the prompts, and prove the best one on the other half."""
