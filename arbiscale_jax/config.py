"""The base of every experiment's configuration: each field once, with its default.

Only the training and the command line read it; networks get plain arguments. The `model` part is what an exported
model's config.json holds.
"""

import ml_collections


def get_base_config() -> ml_collections.ConfigDict:
    """Returns the defaults of every field; experiments in configs/ override and lock them."""
    return ml_collections.ConfigDict(
        dict(
            stage="first_stage",  # first_stage, diffusion or align
            seed=0,  # of everything random: weights, batches, noise
            dtype="float32",  # compute dtype of the networks: float32 or bfloat16; parameters stay float32
            first_stage="",  # run or exported model with the auto-encoder; "" derives it from the work directory's name
            init_from="",  # run or exported model whose weights a fresh run starts from; "" starts from scratch
            model=dict(
                first_stage=dict(  # encoder E and decoder D, paper 4.2
                    z_channels=3,
                    double_z=False,  # E emits mean and log-variance
                    ch=128,
                    ch_mult=(1, 2, 4),  # spatial factor f = 2 ** (len - 1)
                    num_res_blocks=2,
                    resolution=256,  # nominal: places attention, nothing else
                    attn_resolutions=(),
                    mid_attention=True,
                    decoder_attention="constant",  # nominal resolution in D: constant or doubled (models/build.py)
                    num_groups=32,  # of GroupNorm
                ),
                liif=dict(hidden=(256, 256, 256, 256), local_ensemble=True, cell_decode=True),
                unet=dict(  # eps_theta
                    model_channels=160,
                    channel_mult=(1, 2, 2, 4),
                    num_res_blocks=2,
                    attention_rates=(16, 8),  # downsampling rates with self-attention
                    num_heads=0,  # used when num_head_channels is 0
                    num_head_channels=32,
                    scale_shift=False,
                    resblock_updown=False,
                    dropout=0.0,
                    num_groups=32,
                ),
                schedule=dict(timesteps=1000, linear_start=0.0015, linear_end=0.0155),
                condition=dict(  # paper 4.3; the U-Net's input is z_t alone where enabled is False
                    enabled=False,
                    interpolation="bilinear",  # or nearest, as the reference code
                    upsampling=4.0,  # the LR image is enlarged by this before E: HR training size / LR training size
                ),
                sampling=dict(steps=200, sampler="ddim", eta=0.0, size=256),  # defaults; size: generated images
            ),
            data=dict(
                source="embedded",  # embedded (scikit-image's photographs), folder, prepared, tfds or a data set's name
                root="",  # folder, or several joined by commas; prepared set; TFDS name; "": $ARBISCALE_DATA or ./data
                image_size=256,  # the square crop that E sees in training
                lr_size=0,  # side of the antialiased bicubic LR of that crop; 0: none
                flip=True,  # random horizontal mirror
                transpose=False,  # random vertical mirror and transposition
                permute_colors=False,  # random order of the colour channels: hues that a small data set lacks
                min_crop=1.0,  # a crop is image_size / u a side, u ~ U[min_crop, 1], then resized
                target_min=64,  # first stage and align: side s ~ U[target_min, target_max] of the rendered image
                target_max=256,
                target_patch=64,  # side of the random window of it that the loss sees; at most target_min
                val_source="",  # "" holds some of the training source out
                val_root="",
                val_num=8,  # fixed validation crops
                workers=0,  # loader processes; 0: a thread
                center_crop=False,  # the largest square in the middle (faces, scenes) instead of a random crop
                split_file="",  # text file of names, of folders: the images to train on; "": all
                val_split_file="",  # the same for validation; taken out of the training images
                tfds_dir="",  # of source=tfds: where TFDS keeps its sets; "": $TFDS_DATA_DIR or ~/tensorflow_datasets
                image_feature="",  # of prepared and TFDS sets; "": image, hr or the only one
            ),
            loss=dict(
                kl_weight=1e-6,  # first stage, double_z only
                freeze_encoder=False,
                lambda_dm=1.0,  # Eq. 9
                lambda_recon=1.0,
                align_mode="random_t",
                weight_cap=0.0,  # of alpha_bar / (1 - alpha_bar) in Eq. 7; 0: none
            ),
            train=dict(
                steps=100_000,
                minutes=0.0,  # stop after this many minutes of training in all; 0: never
                batch_size=8,  # global
                learning_rate=1e-4,
                warmup_steps=0,
                grad_clip=1.0,  # global norm; 0: none
                ema_decay=0.9999,  # decay min(ema_decay, (1 + n) / (10 + n)); 0: no EMA
                log_every=20,
                val_every=1000,  # 0: only at the end
                checkpoint_every=1000,
                keep=2,  # newest checkpoints kept, beside the best
            ),
        )
    )
