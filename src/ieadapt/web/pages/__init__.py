"""One page per job of the app, each a thin layer over one run of `ieadapt.runs`."""
