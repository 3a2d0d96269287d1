"""The base of every experiment's configuration: each field once, with its default and, beside it, its meaning.

Only the training and the command line read it; networks get plain arguments. The `model` part is what an exported
model's config.json holds. docs/CONFIG.md is made of this file: python -m arbiscale_jax.cli.config_table
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
            model=dict(  # what an exported model's config.json holds
                first_stage=dict(  # encoder E and decoder D, paper 4.2
                    architecture="conv",  # conv (the paper's), or linear_code: a linear code plus a correction
                    z_channels=3,  # of the latent
                    double_z=False,  # E emits mean and log-variance
                    ch=128,  # channels at the first level; of linear_code, everywhere
                    ch_mult=(1, 2, 4),  # channels of each level over ch; the spatial factor f is 2 ** (length - 1)
                    num_res_blocks=2,  # a level of E; D has one more; of linear_code, of E alone
                    resolution=256,  # nominal: places attention, nothing else
                    attn_resolutions=(),  # nominal resolutions with self-attention
                    mid_attention=True,  # self-attention in the middle block
                    decoder_attention="constant",  # nominal resolution in D: constant or doubled (models/build.py)
                    norm="group",  # group (the paper's), channel (of each position alone) or none
                    num_groups=32,  # of GroupNorm
                    subcell=dict(  # of linear_code: D, whose features lie on f x f sub-cells of a latent cell
                        blocks=4,  # residual blocks, on the grid of latent cells
                        features=32,  # of a sub-cell, the first three its colour
                        convs=2,  # 3x3 convolutions on the grid of sub-cells
                    ),
                ),
                liif=dict(  # f_theta, paper 3.2, Eq. 5-6
                    hidden=(256, 256, 256, 256),  # widths of the MLP's hidden layers
                    local_ensemble=True,  # blend the answers of the four nearest cells
                    cell_decode=True,  # tell the MLP the size of an output pixel
                ),
                unet=dict(  # eps_theta
                    architecture="adm",  # adm (the paper's, predicts eps), or local: predicts z_0, the corrected c
                    model_channels=160,  # channels at the first level
                    channel_mult=(1, 2, 2, 4),  # channels of each level over model_channels
                    num_res_blocks=2,  # a level; a number, or one for each level
                    attention_rates=(16, 8),  # downsampling rates with self-attention
                    num_heads=0,  # used when num_head_channels is 0
                    num_head_channels=32,  # channels a head; 0: num_heads heads
                    scale_shift=False,  # the time scales and shifts the normalised features, else it is added
                    resblock_updown=False,  # residual blocks change the resolution, else convolutions do
                    dropout=0.0,  # rate in the residual blocks, in training
                    norm="group",  # group (the paper's), channel (of each position alone) or none
                    num_groups=32,  # of GroupNorm
                    mid_attention=True,  # self-attention in the middle block
                    strength=False,  # of local: it is told how strongly the input is damaged
                ),
                schedule=dict(  # of the noise; betas are linear in their square root
                    timesteps=1000,  # T
                    linear_start=0.0015,  # first beta
                    linear_end=0.0155,  # last beta
                ),
                condition=dict(  # on the LR image, paper 4.3
                    enabled=False,  # super-resolution; without it the U-Net's input is z_t alone
                    interpolation="bilinear",  # to the HR training size: bilinear, bicubic or nearest (the reference's)
                    upsampling=4.0,  # the LR image is enlarged by this before E: HR training size / LR training size
                ),
                sampling=dict(  # defaults of the trained model
                    steps=200,  # evaluations of the U-Net
                    sampler="ddim",  # ddim, dpmpp, or ddim_trailing: from T - 1 to z_0, for few evaluations
                    eta=0.0,  # of DDIM: 0 deterministic, 1 ancestral
                    restore=-1.0,  # SR told the damage: how much is cleaned away, in [0, 1]; below 0: it judges itself
                    finest=0.0,  # least output pixels a latent cell; below it a finer render is reduced; 0: never
                    start=0.0,  # SR: 0 starts from noise (the paper), s in (0, 1] from q(z_t | z_0 = c) at t = s T
                    cell_min=0.0,  # least size of an output pixel (a cell of the latent is 2) told to f_theta; 0: any
                    cell_max=0.0,  # largest; as trained: 2 cells / target_max and 2 cells / target_min; 0: any
                    border=0,  # latent cells reflected around a picture, where convolutions would see zeros
                    refine=0,  # SR: rounds that correct the latent by what the render lacks of the input
                    size=256,  # side of generated images
                ),
            ),
            data=dict(  # images, crops and what the losses compare
                source="embedded",  # embedded (scikit-image's photographs), folder, prepared, tfds or a data set's name
                root="",  # folder, or several joined by commas; prepared set; TFDS name; "": $ARBISCALE_DATA or ./data
                image_size=256,  # the square crop that E sees in training
                lr_size=0,  # side of the LR image that is made of that crop; 0: none
                flip=True,  # random horizontal mirror
                transpose=False,  # random vertical mirror and transposition
                recolor=0.0,  # probability of a random order and strength of the channels: hues that a small set lacks
                min_crop=1.0,  # a crop is image_size / u a side, u ~ U[min_crop, 1], then resized
                target_min=64,  # first stage and align: side s ~ U[target_min, target_max] of the rendered image
                target_max=256,  # largest side s
                target_patch=64,  # side of the random window of it that the loss sees; at most target_min
                val_source="",  # of validation, as source; "" holds some of the training source out
                val_root="",  # of val_source=folder
                val_num=8,  # fixed validation crops
                workers=0,  # loader processes; 0: a thread
                cache_gib=1.0,  # memory for decoded images, of all loader processes together
                degradation="bicubic",  # how the LR is made: bicubic (antialiased) or real (with blur, noise, JPEG)
                lr_scale_min=0.0,  # the crop is shrunk by s ~ U[lr_scale_min, lr_scale_max], then brought to lr_size
                lr_scale_max=0.0,  # largest s; both 0: s = image_size / lr_size
                real=dict(  # of degradation="real" (data/degradations.py); pairs are ranges, drawn from uniformly
                    prob=1.0,  # of degrading an example at all; the others are bicubic
                    blur_prob=0.8,  # of each of two blurs
                    blur_sigma=(0.1, 0.7),  # standard deviation along each axis of a kernel, in LR pixels
                    kernel_radius=(1.5, 4.0),  # where a kernel is cut off, in its larger standard deviations
                    anisotropic_prob=0.5,  # of two standard deviations, at a random angle
                    generalized_prob=0.2,  # of a kernel exp(-r^(2 beta) / 2)
                    beta=(0.5, 4.0),  # its shape, log-uniform; below 1 peaked, above 1 flat
                    noise_prob=0.7,  # of noise
                    noise_sigma=(1.0, 25.0),  # standard deviation of Gaussian noise, in 8-bit levels
                    poisson_prob=0.3,  # of Poisson in place of Gaussian noise
                    poisson_peak=(100.0, 10000.0),  # its photons where white, log-uniform
                    grey_prob=0.4,  # of the same noise in all channels
                    jpeg_prob=0.7,  # of each of two JPEG compressions, one of them last
                    jpeg_quality=(30, 95),  # of JPEG, Pillow's scale
                ),
                synthesis=dict(  # examples made on the devices (data/synthesis); sizes and damage above play no part
                    enabled=False,  # make them so
                    tile=512,  # side of the tiles that pictures are cut into and that stay in device memory
                    whole=False,  # an example is a whole tile, mirrored at most: pictures seen whole, as emoji
                    tiles_per_image=0,  # tiles kept of each picture, those richest in detail; 0: all
                    shares=(),  # of the draws, for each folder of data.root; (): all tiles alike
                    lettered=0,  # lettered and drawn pictures that are added
                    drawn_root="",  # folder of drawn pictures (emoji) that are added, four on a sheet; "": none
                    sheets=60,  # sheets of them, at most
                    drawn_share=0.1,  # of the draws, of all that is lettered and drawn
                    clean=0.35,  # share of the examples whose LR is only reduced
                    light=0.3,  # share with light damage
                    heavy=0.35,  # share with heavy damage
                    pairs_root="",  # folder of pairs, lr/NAME and hr/NAME, that take the place of examples; "": none
                    pairs_share=0.5,  # their share of the batches whose variant holds their scale
                    variants=((32, 88, 3.0, 8.0, 0.7), (48, 80, 2.0, 3.0, 0.3)),  # LR side, window, scales, share
                ),
                latent_cache="",  # folder for latents that are encoded once (stage diffusion); "" encodes each batch
                latent_cache_views=1,  # augmented examples of each image in it
                center_crop=False,  # the largest square in the middle (faces, scenes) instead of a random crop
                split_file="",  # text file of names, of folders: the images to train on; "": all
                val_split_file="",  # the same for validation; taken out of the training images
                tfds_dir="",  # of source=tfds: where TFDS keeps its sets; "": $TFDS_DATA_DIR or ~/tensorflow_datasets
                image_feature="",  # of prepared and TFDS sets; "": image, hr or the only one
            ),
            loss=dict(  # of all stages
                kl_weight=1e-6,  # first stage, double_z only
                coarse_weight=0.0,  # first stage and align: L1 of the means of 4 x 4 pixels; 0: none
                spectrum_weight=0.0,  # first stage and align: of the log power spectra's difference; 0: none
                freeze_encoder=False,  # first stage: train D and f_theta on a given E
                lpips_weight=0.0,  # first stage: LPIPS on the rendered window; 0: none
                lpips_net="vgg",  # alex, vgg or alex+vgg (their mean), for the first stage and align
                lpips_shift=0,  # pixels, at most, by which what LPIPS sees is shifted (and turned) at random
                disc_weight=0.0,  # first stage: the adversarial loss; 0: no discriminator
                disc_start=0,  # steps before a discriminator joins
                disc_net="patch",  # patch (pix2pix's), or unet: Real-ESRGAN's, a logit for each pixel
                disc_loss="hinge",  # hinge, or logistic with the non-saturating loss of the generator
                disc_layers=3,  # of patch: its convolutions of stride 2
                disc_ch=64,  # its channels after the first
                disc_learning_rate=1e-4,  # of its own Adam
                adaptive_weight=True,  # times the ratio of the two losses' gradients at the last layer
                adaptive_weight_max=1e4,  # the ratio's largest value
                lambda_dm=1.0,  # align: weight of L_dm, Eq. 9
                lambda_recon=1.0,  # align: weight of L_recon, Eq. 9
                align_mode="random_t",  # or reverse_ddim, sampling: a step is a path, with an update at each point
                align_steps=20,  # reverse_ddim, sampling: points on the path
                align_t0=0,  # reverse_ddim: the path begins below this time; 0: T, the whole schedule
                align_weight="snr",  # align: each example counts by Eq. 7's weight (snr), or all alike (one)
                align_norm="l2",  # align: squared error of the render (l2, Eq. 7), or its mean absolute error (l1)
                align_decoder=False,  # align: train D and f_theta along; the paper's stay frozen
                align_true_weight=0.0,  # align_decoder: of the same losses on the render of the true latent
                align_lpips_weight=0.0,  # align: LPIPS on the render, beside the squared error of Eq. 7; 0: none
                align_disc_weight=0.0,  # reverse_ddim, sampling: the discriminator's loss on the render; 0: none
                render_size="target",  # align renders: target (a window at a random size), image or latent (whole)
                sampled_times=0.0,  # diffusion: share of the examples at a time that sampling visits, the rest uniform
                min_snr_gamma=0.0,  # diffusion: L_dm times min(SNR, gamma) / SNR (Hang et al. 2023); 0: none
                weight_cap=0.0,  # of alpha_bar / (1 - alpha_bar) in Eq. 7, in mode sampling of L_dm too; 0: none
            ),
            train=dict(  # the loop
                steps=100_000,  # updates in all
                minutes=0.0,  # stop after this many minutes in all, compilation included; 0: never
                batch_size=8,  # global
                accumulate=1,  # micro-batches that a batch is divided into, their gradients averaged
                fsdp=1,  # devices over which weights, EMA and optimizer state are divided too; 1: each holds all
                fsdp_least=65536,  # elements from which on an array is divided
                remat=False,  # recompute blocks in the backward pass: less memory, more time
                learning_rate=1e-4,  # of Adam, after the warm-up
                warmup_steps=0,  # updates over which the learning rate rises linearly
                grad_clip=1.0,  # global norm; 0: none
                ema_decay=0.9999,  # decay min(ema_decay, (1 + n) / (10 + n)); 0: no EMA
                log_every=20,  # steps between two records in metrics.jsonl
                val_every=1000,  # steps between two validations; 0: only at the end
                checkpoint_every=1000,  # steps between two checkpoints; 0: only at the end
                keep=2,  # newest checkpoints kept, beside the best
                schedule="constant",  # of the learning rate after the warm-up: constant, or cosine over the training
                final_lr=0.0,  # cosine: the learning rate at the end, as a fraction of learning_rate
                tensorboard=False,  # write WORKDIR/tensorboard too (extra tensorboard)
                profile_start=10,  # first step of a profiler's trace, WORKDIR/profile
                profile_steps=0,  # its number of steps; 0: no trace
            ),
        )
    )
