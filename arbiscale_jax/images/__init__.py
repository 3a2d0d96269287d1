"""Reads and writes image files of many formats, whole, by frames and row by row."""

from arbiscale_jax.images.formats import MAX_PIXELS, readable_extensions
from arbiscale_jax.images.picture import Metadata, Picture
from arbiscale_jax.images.reading import decode_image, read, read_frames, read_image
from arbiscale_jax.images.saving import save, save_frames
from arbiscale_jax.images.sequences import Frame, Frames

__all__ = [
    "Frame",
    "Frames",
    "MAX_PIXELS",
    "Metadata",
    "Picture",
    "decode_image",
    "read",
    "read_frames",
    "read_image",
    "readable_extensions",
    "save",
    "save_frames",
]
