"""Defines the base of every experiment's configuration: each field once, with its default and a comment on its meaning.

Only the training, the command line and the check of models on disk (model_fields.py) read it; networks get plain
arguments. An exported model's config.json holds the `model` part; a field that is added there is also added to
models/build.py, with its value for older models. The page docs/CONFIG.md is made from this file by python -m
arbiscale_jax.cli.config_table
"""

import ml_collections


def get_base_config() -> ml_collections.ConfigDict:
    """Returns the defaults of every field; the experiments in configs/ change some and lock the result."""
    return ml_collections.ConfigDict(
        dict(
            stage="first_stage",  # which stage to train: first_stage, diffusion, align; or baseline (comparisons.py)
            seed=0,  # seed of everything random (weights, batches, noise): a whole number >= 0 of any size
            dtype="float32",  # type in which the networks compute: float32 or bfloat16; parameters stay float32
            first_stage="",  # run or exported model with the auto-encoder; "" derives it from the work directory's name
            init_from="",  # run or exported model whose weights a fresh run starts from; "" starts from scratch
            model=dict(  # the model, as an exported model's config.json stores it
                first_stage=dict(  # encoder E and decoder D, paper 4.2
                    architecture="conv",  # conv (the paper's), or linear_code: a linear code with a learnt correction
                    decoder="conv",  # for conv: D, conv (the paper's), subcell, or pointwise (single latent cells)
                    decoder_ch=0,  # channels of D at the first level (subcell: at every level); 0 means ch
                    z_channels=3,  # number of channels of the latent
                    double_z=False,  # whether E gives a mean and a log-variance
                    ch=128,  # channels at the first level; for linear_code at every level
                    ch_mult=(1, 2, 4),  # channels of each level divided by ch; the spatial factor is 2 ** (length - 1)
                    num_res_blocks=2,  # residual blocks per level of E; D has one more; for linear_code E alone
                    resolution=256,  # nominal image side, which only decides where there is attention
                    attn_resolutions=(),  # nominal resolutions that have self-attention
                    mid_attention=True,  # whether the middle block has self-attention
                    decoder_attention="constant",  # nominal resolution inside D: constant or doubled (models/build.py)
                    norm="group",  # normalisation: group (the paper's), channel (of each position alone) or none
                    num_groups=32,  # number of groups of GroupNorm
                    subcell=dict(  # for linear_code and the decoder subcell: D, with f x f sub-cells per latent cell
                        blocks=4,  # number of residual blocks on the grid of latent cells
                        features=32,  # features per sub-cell, of which the first three are its colour
                        convs=2,  # number of 3x3 convolutions on the grid of sub-cells
                    ),
                ),
                liif=dict(  # the renderer f_theta, paper 3.2, Eq. 5-6
                    hidden=(256, 256, 256, 256),  # widths of the MLP's hidden layers
                    local_ensemble=True,  # whether to blend the answers of the four nearest cells
                    cell_decode=True,  # whether the MLP is told the size of an output pixel
                ),
                unet=dict(  # the U-Net eps_theta
                    architecture="adm",  # adm (the paper's, predicts eps), or local (predicts z_0 as a corrected c)
                    model_channels=160,  # channels at the first level
                    channel_mult=(1, 2, 2, 4),  # channels of each level divided by model_channels
                    num_res_blocks=2,  # residual blocks per level: one number, or one for each level
                    attention_rates=(16, 8),  # downsampling rates that have self-attention
                    num_heads=0,  # number of attention heads; used if num_head_channels is 0
                    num_head_channels=32,  # channels per attention head; 0 means num_heads heads
                    scale_shift=False,  # whether the time scales and shifts the normalised features; else it is added
                    resblock_updown=False,  # whether residual blocks change the resolution; else convolutions do
                    dropout=0.0,  # dropout rate in the residual blocks during training
                    norm="group",  # normalisation: group (the paper's), channel (of each position alone) or none
                    num_groups=32,  # number of groups of GroupNorm
                    mid_attention=True,  # whether the middle block has self-attention
                    strength=False,  # for local: whether it is told how strongly the input is damaged
                    labels=dict(  # for adm without a condition: what it knows of pictures' names; data.labels fills it
                        styles=(),  # names of the styles; () and words=() mean no labels
                        words=(),  # words
                        most_words=0,  # number of words that a label may have
                        examples=(),  # labels of some training pictures, drawn from where sampling is given no prompt
                    ),
                ),
                schedule=dict(  # the noise schedule, whose betas are linear in their square root
                    timesteps=1000,  # number of times T
                    linear_start=0.0015,  # first beta
                    linear_end=0.0155,  # last beta
                ),
                condition=dict(  # the condition on the LR image, paper 4.3
                    enabled=False,  # whether the model does super-resolution; else the U-Net's input is z_t alone
                    interpolation="bilinear",  # how to enlarge LR images: bilinear, bicubic, nearest (the reference's)
                    upsampling=4.0,  # factor by which LR images are enlarged before E: HR / LR training size
                ),
                sampling=dict(  # default settings of sampling
                    steps=200,  # number of evaluations of the U-Net
                    sampler="ddim",  # ddim, dpmpp, or ddim_trailing: from T - 1 to z_0, for few evaluations
                    eta=0.0,  # noise that DDIM adds in each step: 0 none (deterministic), 1 ancestral sampling
                    guidance=1.0,  # labels: scale of classifier-free guidance; 1 none, 0 unlabelled, above 1 stronger
                    guidance_low=0.0,  # labels: share of the times T from which on there is guidance
                    guidance_high=1.0,  # labels: share of the times T up to which there is guidance
                    statistics="whole",  # of norms in pictures that are cut: of the whole, or window, in half the time
                    restore=-1.0,  # SR told the damage: share to clean away, in [0, 1]; below 0 it judges by itself
                    finest=0.0,  # least output pixels per latent cell; with fewer, a finer render is reduced; 0: never
                    densest=0.0,  # most output pixels per latent cell computed; between them is interpolated; 0: all
                    start=0.0,  # SR: 0 starts from noise (the paper), s in (0, 1] from the noised condition at t = s T
                    cell_min=0.0,  # least pixel size told to f_theta; as trained: 2 cells / target_max; 0 means none
                    cell_max=0.0,  # largest such size (a latent cell is 2); as trained: 2 cells / target_min; 0: none
                    border=0,  # latent cells reflected around a picture, where convolutions would see zeros
                    refine=0,  # SR: number of rounds that correct the latent by what the render lacks of the input
                    size=256,  # side of generated images in pixels
                ),
            ),
            data=dict(  # images, crops and what the losses compare
                source="embedded",  # embedded (scikit-image's photographs), folder, prepared, tfds or a data set's name
                root="",  # folder, or several joined by commas; prepared set; TFDS name; "": $ARBISCALE_DATA or ./data
                image_size=256,  # side of the square crop that E sees in training
                lr_size=0,  # side of the LR image that is made of this crop; 0 means none
                lr_root="",  # for source=folder: folders of given LR pictures, as many as in root; "" makes LR images
                min_side=0,  # pictures whose shorter side is below this are left out; 0: an eighth of image_size
                labels="",  # names: the U-Net is told style and words of pictures' names (STYLE__WORDS); "": no labels
                label_words=2048,  # largest number of words in the vocabulary, the most frequent ones
                flip=True,  # whether to mirror crops horizontally at random
                transpose=False,  # whether to mirror crops vertically and to transpose them at random
                recolor=0.0,  # probability of reordering and scaling the colour channels: hues that a small set lacks
                min_crop=1.0,  # a crop has the side image_size / u, u ~ U[min_crop, 1], and is then resized
                target_min=64,  # first stage and align: side s ~ U[target_min, target_max] of the rendered image
                target_max=256,  # largest side s
                target_patch=64,  # side of the random window of it that the loss sees; at most target_min
                val_source="",  # source of the validation images; "" holds out some of the training images
                val_root="",  # folder for val_source=folder
                val_lr_root="",  # the same as lr_root for val_root
                val_num=8,  # number of fixed validation crops
                workers=0,  # number of loader processes; 0 means a thread
                cache_gib=1.0,  # GiB of memory for decoded images, of all loader processes together
                degradation="bicubic",  # how LR images are made: bicubic (antialiased) or real (blur, noise, JPEG)
                lr_scale_min=0.0,  # the crop is reduced by s ~ U[lr_scale_min, lr_scale_max], then resized to lr_size
                lr_scale_max=0.0,  # largest s; if both are 0, s = image_size / lr_size
                real=dict(  # for degradation="real" (data/degradations.py); from a pair a number is drawn uniformly
                    prob=1.0,  # probability of degrading an example at all; the others are bicubic
                    blur_prob=0.8,  # probability of each of two blurs
                    blur_sigma=(0.1, 0.7),  # standard deviation along each axis of a blur kernel, in LR pixels
                    kernel_radius=(1.5, 4.0),  # radius of a kernel, in multiples of its larger standard deviation
                    anisotropic_prob=0.5,  # probability of two different standard deviations, at a random angle
                    generalized_prob=0.2,  # probability of a kernel exp(-r^(2 beta) / 2)
                    beta=(0.5, 4.0),  # shape of this kernel, drawn log-uniformly; below 1 peaked, above 1 flat
                    noise_prob=0.7,  # probability of noise
                    noise_sigma=(1.0, 25.0),  # standard deviation of Gaussian noise, in 8-bit levels
                    poisson_prob=0.3,  # probability of Poisson noise in place of Gaussian noise
                    poisson_peak=(100.0, 10000.0),  # number of photons where it is white, drawn log-uniformly
                    grey_prob=0.4,  # probability of the same noise in all channels
                    jpeg_prob=0.7,  # probability of each of two JPEG compressions, one of them last
                    jpeg_quality=(30, 95),  # JPEG quality on Pillow's scale
                ),
                synthesis=dict(  # examples made on the devices (data/synthesis), without the sizes and damage above
                    enabled=False,  # whether the devices make the examples
                    tile=512,  # side of the tiles into which pictures are cut and which stay in device memory
                    whole=False,  # whether an example is a whole tile, mirrored at most, as for emoji
                    tiles_per_image=0,  # tiles kept per picture, those richest in detail; 0 means all
                    shares=(),  # share of the draws for each folder of data.root; () draws from all tiles alike
                    lettered=0,  # number of pictures with letters and drawings that are added
                    drawn_root="",  # folder of drawn pictures (emoji) that are added, four per sheet; "" means none
                    sheets=60,  # largest number of such sheets
                    drawn_share=0.1,  # share of the draws for lettered and drawn pictures together
                    clean=0.35,  # share of the examples whose LR image is only reduced
                    light=0.3,  # share of the examples with light damage
                    heavy=0.35,  # share of the examples with heavy damage
                    pairs_root="",  # folder of pairs, lr/NAME and hr/NAME, that replace some examples; "" means none
                    pairs_share=0.5,  # share of pairs in the batches whose variant includes their scale
                    variants=((32, 88, 3.0, 8.0, 0.7), (48, 80, 2.0, 3.0, 0.3)),  # LR side, window, scale range, share
                ),
                latent_cache="",  # folder for latents that are encoded once (stage diffusion); "" encodes each batch
                latent_cache_views=1,  # number of augmented examples of each image in this folder
                center_crop=False,  # whether to take the largest central square (faces, scenes), not a random crop
                split_file="",  # for folders: text file with the names of the training images; "" means all
                val_split_file="",  # the same for validation; these images are left out of training
                tfds_dir="",  # for source=tfds: where TFDS keeps its sets; "": $TFDS_DATA_DIR or ~/tensorflow_datasets
                image_feature="",  # for prepared and TFDS sets: name of the feature; "": image, hr or the only one
            ),
            loss=dict(  # the losses of all stages
                kl_weight=1e-6,  # first stage with double_z: weight of the KL divergence
                coarse_weight=0.0,  # first stage and align: weight of L1 on means of 4 x 4 pixels; 0 means none
                spectrum_weight=0.0,  # first stage and align: weight of the difference of log power spectra; 0: none
                latent_noise=0.0,  # first stage: D sees latents with noise of up to so many of their deviations
                freeze_encoder=False,  # first stage: whether to train only D and f_theta, on a given E
                lpips_weight=0.0,  # first stage: weight of LPIPS on the rendered window; 0 means none
                lpips_net="vgg",  # first stage and align: alex, vgg or alex+vgg (the mean of both)
                lpips_shift=0,  # largest random shift, in pixels, of what LPIPS sees, also transposed at random
                disc_weight=0.0,  # first stage: weight of the adversarial loss; 0 means no discriminator
                disc_start=0,  # number of steps before the discriminator joins
                disc_net="patch",  # patch (pix2pix's), or unet (Real-ESRGAN's, with one logit per pixel)
                disc_loss="hinge",  # hinge, or logistic with the non-saturating loss of the generator
                disc_layers=3,  # for patch: number of convolutions of stride 2
                disc_ch=64,  # channels of the discriminator after its first layer
                disc_learning_rate=1e-4,  # learning rate of the discriminator's own Adam
                adaptive_weight=True,  # whether to multiply by the ratio of both losses' gradients at the last layer
                adaptive_weight_max=1e4,  # largest value of this ratio
                lambda_dm=1.0,  # align: weight of L_dm, Eq. 9
                lambda_recon=1.0,  # align: weight of L_recon, Eq. 9
                align_mode="random_t",  # random_t; reverse_ddim or sampling: a step is a path with an update per point
                align_steps=20,  # reverse_ddim and sampling: number of points on the path
                align_t0=0,  # reverse_ddim: the path begins below this time; 0 means T, the whole schedule
                align_weight="snr",  # align: whether examples have the weight of Eq. 8 (snr) or count alike (one)
                align_norm="l2",  # align: squared error of the render (l2, Eq. 7), or its mean absolute error (l1)
                align_decoder=False,  # align: whether to train D and f_theta too; in the paper they stay fixed
                align_true_weight=0.0,  # align_decoder: weight of the same losses on the render of the true latent
                align_lpips_weight=0.0,  # align: weight of LPIPS on the render, added to the error of Eq. 7; 0: none
                align_disc_weight=0.0,  # reverse_ddim and sampling: weight of the adversarial loss; 0 means none
                render_size="target",  # what align renders: target (a window at a random size), image or latent (whole)
                label_dropout=0.1,  # labels: rate at which the label, its style alone and its words alone are dropped
                sampled_times=0.0,  # diffusion: share of examples at a time that sampling visits, the rest is uniform
                min_snr_gamma=0.0,  # diffusion: L_dm times min(SNR, gamma) / SNR (Hang et al. 2023); 0: L_dm itself
                weight_cap=0.0,  # largest alpha_bar / (1 - alpha_bar) in Eq. 7, in mode sampling in L_dm too; 0: none
            ),
            train=dict(  # the training loop
                steps=100_000,  # number of updates in all
                minutes=0.0,  # end after so many minutes of training in all, compilation not counted; 0: never
                batch_size=8,  # number of examples per batch, over all devices
                accumulate=1,  # number of micro-batches per batch, whose gradients are averaged
                fsdp=1,  # devices over which weights, EMA and optimizer state are divided; 1: every device holds all
                fsdp_least=65536,  # number of elements from which on an array is divided
                remat=False,  # whether to recompute blocks in the backward pass: less memory, more time
                learning_rate=1e-4,  # learning rate of Adam after the warm-up
                warmup_steps=0,  # number of updates during which the learning rate rises linearly
                grad_clip=1.0,  # largest global norm of the gradient; 0 means no limit
                ema_decay=0.9999,  # decay of the EMA, min(ema_decay, (1 + n) / (10 + n)) at update n; 0 means no EMA
                log_every=20,  # steps between two records in metrics.jsonl
                val_every=1000,  # steps between two validations; 0 means only at the end
                checkpoint_every=1000,  # steps between two checkpoints; 0 means only at the end
                keep=2,  # number of newest checkpoints kept, besides the best one
                schedule="constant",  # learning rate after the warm-up: constant, or cosine over the training
                final_lr=0.0,  # cosine: the learning rate at the end, as a fraction of learning_rate
                tensorboard=False,  # whether to write WORKDIR/tensorboard too (extra tensorboard)
                profile_start=10,  # first step of a profiler's trace, which is written to WORKDIR/profile
                profile_steps=0,  # number of traced steps; 0 means no trace
            ),
        )
    )
