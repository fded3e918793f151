"""The counterfactual-latent index: values of causal variables → recorded latents that hold them."""
