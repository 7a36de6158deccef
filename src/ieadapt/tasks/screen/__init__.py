"""Screen: what each layer does, predicted from few passes of the denoiser."""
