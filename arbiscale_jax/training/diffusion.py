"""Stage 2: noise prediction on frozen latents, unconditional or SR (paper Eq. 4)."""

from arbiscale_jax import diffusion

from . import latent
from .stage import Stage


def make_stage(config) -> Stage:
    """Builds stage 2: L_dm of Eq. 4."""
    nets = latent.build_nets(config)

    def losses_at(params, frozen, batch, key, t, *, train):
        out = latent.predict(nets, params, frozen, batch, key, t, train=train)
        return {"loss": diffusion.eps_loss(out.eps_hat, out.eps)}

    return latent.make_stage(nets, losses_at)
