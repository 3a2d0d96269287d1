"""Trains stage 2, noise prediction on frozen latents, unconditional or for super-resolution (paper Eq. 4)."""

from arbiscale_jax import diffusion

from . import latent
from .stage import Stage, check_least


def make_stage(config) -> Stage:
    """Builds stage 2, with the loss L_dm of Eq. 4.

    If the U-Net predicts z_0, L_dm is the squared error of z_0. If loss.min_snr_gamma is set, L_dm is weighted as in
    Hang et al. 2023: times with little noise, which are easy and many, get less weight, so that times with much noise,
    which decide the layout of a picture, are learnt. The metric dm is L_dm without that weight.

    Raises:
      UserError: if loss.min_snr_gamma or loss.sampled_times is negative.
    """
    check_least(config, {"loss.min_snr_gamma": 0, "loss.sampled_times": 0})
    gamma = config.loss.min_snr_gamma
    nets = latent.build_nets(config)

    def losses_at(params, frozen, batch, key, t, *, train):
        out = latent.predict(nets, params, frozen, batch, key, t, train=train)
        if not gamma:
            return {"loss": out.dm}
        return {"loss": diffusion.min_snr_weight(t, nets.alpha_bar, gamma) * out.dm, "dm": out.dm}

    return latent.make_stage(nets, losses_at, config.loss.sampled_times)
