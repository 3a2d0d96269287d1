"""Says how much the server takes and holds."""

from dataclasses import dataclass

KNOWN_CLIENT_SECONDS = 10.0  # how long the work of a page goes on after the page was closed, which may be a reload


@dataclass(frozen=True)
class Limits:
    """Lists the limits of a server; those per client count for one page, or for one address that is no page's."""

    upload_bytes: int = 50_000_000  # of a file that is uploaded
    input_pixels: int = 25_000_000  # of a picture that is uploaded
    output_pixels: int = 100_000_000  # of one result
    window_pixels: int = 2**20  # of one window of a view
    samples: int = 16  # answers for one picture
    images: int = 64  # generated together
    jobs_per_client: int = 16  # that wait or run
    jobs: int = 256  # that wait or run, of all clients together
    windows_per_client: int = 64  # that wait
    windows: int = 1024  # that wait, of all clients together
    pictures_per_client: int = 64  # that are stored
    results_per_client: int = 128  # finished jobs that are kept; the oldest are forgotten
    picture_bytes: int = 2 * 10**9  # of stored pictures; those that were used longest ago are forgotten
    result_bytes: int = 8 * 10**9  # of stored results; likewise
    encoded_bytes: int = 2**27  # of encoded windows in memory
    decoded_bytes: int = 2**28  # of decoded pictures in memory
    latent_bytes: int = 2**28  # of latents in memory
    viewer_bytes: int = 2**30  # of D's features in memory
    leaving_seconds: float = KNOWN_CLIENT_SECONDS
