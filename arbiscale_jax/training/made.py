"""What a stage makes on the devices: its examples' variants and settings, and the state that training starts from."""

from collections.abc import Callable

from arbiscale_jax.data import synthesis

from .stage import Stage
from .state import create_state
from .step import stream


def example_settings(config) -> tuple[tuple[synthesis.Variant, ...], synthesis.Settings]:
    """Returns the variants and settings of data.synthesis as the stage needs them: only latent SR stages see damage.

    Raises: UserError for the first field that makes no sense.
    """
    variants, settings = synthesis.from_config(config.data)
    condition = config.model.condition
    damage = condition.enabled and config.stage != "first_stage"
    return variants, settings._replace(upsampling=round(condition.upsampling), damage=damage)


def state_maker(config, stage: Stage, tx) -> Callable:
    """Returns the function that makes a fresh TrainState of params (arrays or shapes), the discriminator's included."""

    def create(params):
        disc = stage.adversary.init(stream(config.seed, "disc")) if stage.adversary else None
        return create_state(params, tx, config.train.ema_decay, disc)

    return create
