"""The perturbation study: its configuration, grid and videos."""
