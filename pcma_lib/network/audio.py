"""From a waveform to one embedding a second: VGGish's front end, network and postprocessor (paper III-A).

The front end follows Hershey et al., "CNN architectures for large-scale audio classification" (2017),
reference [40] of the paper; its constants are listed where they are used.
"""

import soxr
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ..data.files import SAMPLE_RATE

EXAMPLE_SECONDS = 0.96


def mel_filters(
    bands: int = 64, fft_size: int = 512, sample_rate: int = SAMPLE_RATE, low_hz: float = 125.0, high_hz: float = 7500.0
) -> Tensor:
    """VGGish's filter bank: triangles drawn over the mel axis, not over hertz, without normalisation.

    Returns:
        [fft_size // 2 + 1, bands]; the row of the constant component is zero.
    """

    def mel(hz):
        return 1127.0 * torch.log1p(hz / 700.0)

    bins = mel(torch.linspace(0, sample_rate / 2, fft_size // 2 + 1, dtype=torch.float64))[:, None]
    low, high = mel(torch.tensor([low_hz, high_hz], dtype=torch.float64)).tolist()
    edges = torch.linspace(low, high, bands + 2, dtype=torch.float64)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins - lower) / (centre - lower)
    falling = (upper - bins) / (upper - centre)
    weights = torch.minimum(rising, falling).clamp(min=0)
    weights[0] = 0
    return weights.float()


class LogMel(nn.Module):
    """Waveform to log-mel examples, equal to VGGish's own front end.

    400-sample periodic Hann windows every 160 samples, no padding, magnitude of a 512-point FFT, 64 mel bands from
    125 to 7500 Hz, log(mel + 0.01), cut into examples of 96 frames. Example k therefore starts at 0.96 k seconds.

    Args:
        sample_rate: of the waveform, in Hz; anything but 16000 is resampled.

    Shapes:
        waveform: [N], or [channels, N] which is averaged to mono; values in [-1, 1].
        returns: [examples, 1, 96, 64] float32.

    Raises:
        ValueError: not one or two dimensions, not finite, or shorter than one example (0.975 s).
    """

    def __init__(self, sample_rate: int = SAMPLE_RATE) -> None:
        super().__init__()
        if sample_rate <= 0:
            raise ValueError(f"sample_rate must be positive, got {sample_rate}")
        self.sample_rate = sample_rate
        self.register_buffer("window", torch.hann_window(400, periodic=True), persistent=False)
        self.register_buffer("filters", mel_filters(), persistent=False)

    def forward(self, waveform: ArrayLike) -> Tensor:
        waveform = torch.as_tensor(waveform, dtype=torch.float32, device=self.window.device)
        if waveform.ndim not in (1, 2):
            raise ValueError(f"waveform must be [N] or [channels, N], got {list(waveform.shape)}")
        if not torch.isfinite(waveform).all():
            raise ValueError("waveform holds NaN or infinite samples")
        if waveform.ndim == 2:
            waveform = waveform.mean(0)
        if self.sample_rate != SAMPLE_RATE:
            resampled = soxr.resample(waveform.cpu().numpy(), self.sample_rate, SAMPLE_RATE)
            waveform = torch.from_numpy(resampled).to(waveform.device)
        frames = 1 + (waveform.numel() - 400) // 160
        if frames < 96:
            needed = (400 + 95 * 160) / SAMPLE_RATE
            raise ValueError(f"waveform of {waveform.numel() / SAMPLE_RATE:.3f} s is shorter than one example ({needed} s)")
        spectrum = torch.fft.rfft(waveform.unfold(0, 400, 160) * self.window, n=512).abs()
        log_mel = torch.log(spectrum @ self.filters + 0.01)
        examples = frames // 96
        return log_mel[: examples * 96].reshape(examples, 1, 96, 64)


class VGGish(nn.Module):
    """The VGG-like network over log-mel examples ([40]; layers named as in the released weights).

    Args:
        width: share of the published channel numbers (64 to 512, 4096). 1.0 loads the released weights;
            a smaller one is for training from scratch on small data.
        batch_norm: normalise after every convolution, which the released network does not; from scratch on small data it
            learns to tag sounds in a third of the steps.

    Shapes:
        log_mel: [..., 1, 96, 64] -> [..., 128], the raw embedding without PCA, as AVS models use it.
    """

    def __init__(self, width: float = 1.0, batch_norm: bool = False) -> None:
        super().__init__()
        a, b, c, d, hidden = (max(1, round(n * width)) for n in (64, 128, 256, 512, 4096))
        layers, previous = [], 1
        for stage in ([a], [b], [c, c], [d, d]):
            for channels in stage:
                norm = [nn.BatchNorm2d(channels)] if batch_norm else []
                layers += [nn.Conv2d(previous, channels, 3, padding=1), *norm, nn.ReLU()]
                previous = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.embeddings = nn.Sequential(
            nn.Linear(d * 6 * 4, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 128), nn.ReLU()
        )

    def forward(self, log_mel: Tensor) -> Tensor:
        if log_mel.shape[-3:] != (1, 96, 64):
            raise ValueError(f"log_mel must be [..., 1, 96, 64], got {list(log_mel.shape)}")
        features = self.features(log_mel.reshape(-1, 1, 96, 64))
        # The published weights flatten height, width, channel in this order.
        embedding = self.embeddings(features.permute(0, 2, 3, 1).flatten(1))
        return embedding.reshape(*log_mel.shape[:-3], 128)


class Postprocessor(nn.Module):
    """VGGish's PCA whitening and 8-bit quantisation, as AudioSet's published embeddings have them: cut off, not rounded.

    Audio-visual segmentation uses the raw embedding instead; this class is for comparing with published features.

    Args:
        eigenvectors: [128, 128] PCA matrix, one component a row.
        means: [128] or [128, 1].

    Shapes:
        embedding: [..., 128] -> [..., 128] whole numbers from 0 to 255 (float), -2 to 2 in steps of 4/255.
    """

    def __init__(self, eigenvectors: Tensor, means: Tensor) -> None:
        super().__init__()
        if tuple(eigenvectors.shape) != (128, 128) or means.numel() != 128:
            raise ValueError(f"expected [128, 128] and 128 means, got {list(eigenvectors.shape)}, {list(means.shape)}")
        self.register_buffer("pca_eigen_vectors", eigenvectors.float())
        self.register_buffer("pca_means", means.float().reshape(128))

    def forward(self, embedding: Tensor) -> Tensor:
        whitened = (embedding - self.pca_means) @ self.pca_eigen_vectors.T
        return ((whitened.clamp(-2.0, 2.0) + 2.0) * (255.0 / 4.0)).floor()
