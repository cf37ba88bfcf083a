"""Solutions of lesson 02."""


def side(n, k, s, p):
    # The kernel's left edge can stand at 0, s, 2s and so on, up to n + 2p - k. The last step that does not fit is left out.
    return (n + 2 * p - k) // s + 1


def cbr_parameters(a, b):
    # Nine weights for every pair of channels and a bias for every output. Batch norm scales and shifts every output.
    return 9 * a * b + b + 2 * b


def cbr_macs(a, b, n):
    # Every weight is used once at every place. The second case of the check is 1.85 G, one convolution on the finest map of
    # one frame. Remember it for lesson 06.
    return 9 * a * b * n * n


def pyramid_of(part, frames):
    # Each level has a CBR of its own.
    return [cbr(level) for cbr, level in zip(part.project, part.encoder(frames))]
