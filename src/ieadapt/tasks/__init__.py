"""Tasks: one folder each, with its config, its method, its run and its report."""
