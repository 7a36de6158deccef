"""ieadapt: see what every attention layer of a video diffusion model does, and use what is seen."""
