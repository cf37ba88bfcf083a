import numpy as np
import pytest
import scipy.signal
import soundfile
import torch

from pcma_lib import LogMel, Postprocessor, VGGish
from pcma_lib.data.files import read_wave


def naive_log_mel(wave):
    """VGGish's published recipe, frame by frame and band by band."""
    window = scipy.signal.get_window("hann", 400, fftbins=True)

    def mel(hz):
        return 1127 * np.log(1 + hz / 700)

    edges = np.linspace(mel(125), mel(7500), 66)
    bins = mel(np.arange(257) * 8000 / 256)
    rows = []
    for start in range(0, len(wave) - 399, 160):
        magnitude = np.abs(np.fft.fft(wave[start : start + 400] * window, 512))[:257]
        bands = []
        for low, centre, high in zip(edges, edges[1:], edges[2:]):
            weight = np.maximum(0, np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)))
            weight[0] = 0
            bands.append(magnitude @ weight)
        rows.append(np.log(np.array(bands) + 0.01))
    count = len(rows) // 96
    return np.array(rows[: count * 96]).reshape(count, 1, 96, 64)


def test_log_mel_equals_the_published_front_end():
    wave = np.random.default_rng(0).normal(0, 0.1, 80000)
    ours = LogMel()(torch.from_numpy(wave)).numpy()
    assert ours.shape == (5, 1, 96, 64)
    np.testing.assert_allclose(ours, naive_log_mel(wave), atol=1e-4)


@pytest.mark.parametrize("rate", [8000, 44100])
def test_other_rates_and_stereo_are_resampled_and_mixed(rate):
    tone = np.sin(2 * np.pi * 1000 * np.arange(rate * 5) / rate).astype(np.float32)
    reference = LogMel()(np.sin(2 * np.pi * 1000 * np.arange(80000) / 16000))
    ours = LogMel(rate)(torch.from_numpy(np.stack([tone, tone])))
    assert ours.shape == reference.shape
    assert (ours.mean((0, 1, 2)).argmax() == reference.mean((0, 1, 2)).argmax()).item()


@pytest.mark.parametrize("wave, message", [(torch.full((80000,), torch.nan), "NaN"), (torch.zeros(1000), "shorter")])
def test_bad_waveforms_are_refused(wave, message):
    with pytest.raises(ValueError, match=message):
        LogMel()(wave)


def test_embeddings_are_whitened_clipped_and_cut_off_to_a_byte():
    components, means = torch.eye(128).flip(0), torch.full((128, 1), 0.5)
    embedding = torch.zeros(128)
    embedding[:4] = torch.tensor([0.5, 2.49, -9.0, 9.0])  # without the mean 0, 1.99 and beyond both ends
    expected = torch.full((128,), (2 - 0.5) * 63.75 // 1)
    expected[-4:] = torch.tensor([255.0, 0.0, 254.0, 127.0])  # 255, 0, 254.4, 127.5
    assert torch.equal(Postprocessor(components, means)(embedding), expected)


def test_vggish_has_the_published_size():
    assert sum(p.numel() for p in VGGish().parameters()) == 72_141_184
    assert VGGish(0.125)(torch.zeros(2, 5, 1, 96, 64)).shape == (2, 5, 128)


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000, 44099])
def test_a_tone_at_another_rate_becomes_the_same_tone_at_16_khz(tmp_path, rate):
    tone = {r: np.sin(2 * np.pi * 440 * np.arange(2 * r) / r).astype(np.float32) / 2 for r in (rate, 16000)}
    soundfile.write(tmp_path / "tone.wav", tone[rate], rate, subtype="FLOAT")
    found, expected = read_wave(tmp_path / "tone.wav"), tone[16000]
    assert abs(len(found) - len(expected)) <= 1
    inner = slice(800, 31000)
    assert np.abs(found[inner] - expected[inner]).max() < 1e-3
    inner = slice(1, 2)  # examples away from the ends
    expected = LogMel()(expected)
    assert (LogMel(rate)(tone[rate])[inner] - expected[inner]).abs().max() < 1e-2
