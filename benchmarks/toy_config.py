"""A first stage with a discriminator that trains in seconds, for kill_and_resume.py and the tests of whole programs."""

from arbiscale_jax.experiments import get_base_config


def get_config(kind="adversarial"):
    """Run: python run_train.py --config benchmarks/toy_config.py --workdir DIR

    toy_config.py:plain has no discriminator, and compiles in half the time.
    """
    c = get_base_config()
    c.model.first_stage.update(ch=4, ch_mult=(1,), num_res_blocks=1, num_groups=2, z_channels=2, double_z=True)
    c.model.first_stage.mid_attention = False
    c.model.liif.hidden = (8,)
    c.data.update(image_size=16, target_min=16, target_max=20, target_patch=16, val_num=2)
    c.loss.update(disc_weight=0.0 if kind == "plain" else 0.1, disc_layers=1, disc_ch=2)
    c.train.update(steps=60, batch_size=2, learning_rate=1e-3, schedule="cosine", warmup_steps=5)
    c.train.update(log_every=1, val_every=0, checkpoint_every=5)
    return c.lock()
