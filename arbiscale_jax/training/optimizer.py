"""Adam behind a global-norm clip and a linear warm-up."""

import jax.numpy as jnp
import optax


def make_optimizer(learning_rate: float, warmup_steps: int = 0, grad_clip: float = 0.0) -> optax.GradientTransformation:
    """Builds the one optimizer of all stages.

    Its state has the same shape whatever the arguments, so a run may be resumed with others.
    Args: learning_rate, constant after a linear rise over warmup_steps updates; grad_clip, largest global norm of the
      gradient, 0 for none.
    """

    def schedule(count):
        return learning_rate * jnp.minimum(1.0, (count + 1) / max(warmup_steps, 1))

    return optax.chain(optax.clip_by_global_norm(grad_clip or float("inf")), optax.adam(schedule))
