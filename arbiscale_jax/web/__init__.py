"""Serves the page and the HTTP API: upscaling, generating, and zooming into one latent."""
