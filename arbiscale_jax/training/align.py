"""Stage 3: the diffusion model aligned with the frozen decoder (paper 4.4, Eq. 7-9).

The gradient of the reconstruction reaches the U-Net through f_theta and D, whose weights stay.
"""

from arbiscale_jax import diffusion
from arbiscale_jax.errors import UserError

from . import latent
from .stage import Stage, render_window

MODES = ("random_t",)


def make_stage(config) -> Stage:
    """Builds stage 3: lambda_dm L_dm + lambda_recon L_recon (Eq. 9), at t uniform in [0, T).

    Raises: UserError for an unknown loss.align_mode.
    """
    loss = config.loss
    if loss.align_mode not in MODES:
        raise UserError(f"loss.align_mode is one of {', '.join(MODES)}, got {loss.align_mode!r}.")
    nets = latent.build_nets(config)

    def losses_at(params, frozen, batch, key, t, *, train):
        out = latent.predict(nets, params, frozen, batch, key, t, train=train)
        z_0_hat = diffusion.predict_z_0(out.z_t, out.eps_hat, t, nets.alpha_bar)
        x_hat = render_window(nets.first_stage, frozen["first_stage"], z_0_hat / frozen["scale_factor"], batch)
        l_dm = diffusion.eps_loss(out.eps_hat, out.eps)
        l_recon = diffusion.recon_loss(x_hat, batch["target"], t, nets.alpha_bar, loss.weight_cap or None)
        return {"loss": loss.lambda_dm * l_dm + loss.lambda_recon * l_recon, "dm": l_dm, "recon": l_recon}

    return latent.make_stage(nets, losses_at)
