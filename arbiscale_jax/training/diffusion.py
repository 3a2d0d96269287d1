"""Stage 2: noise prediction on frozen latents, unconditional or SR (paper Eq. 4)."""

from arbiscale_jax import diffusion

from . import latent
from .stage import Stage, check_least


def make_stage(config) -> Stage:
    """Builds stage 2: L_dm of Eq. 4, under the weight of Hang et al. 2023 where loss.min_snr_gamma is set.

    Where the U-Net predicts z_0, L_dm is the squared error of z_0. The weight takes from the small noise, whose many
    easy times would lead the gradients, what the large noise needs:
    it is there that a picture is laid out. The metric dm is L_dm itself.
    Raises: UserError for a negative gamma.
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
