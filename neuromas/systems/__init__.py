"""Networks that can be run: recorded, and resumed from an intervened latent."""
