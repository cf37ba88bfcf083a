"""What attention costs: equations 5 and 6 of the paper, operations counted while they run, and time.

All costs are multiply-accumulates (MACs), the unit of the paper's "FLOPs".
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def msa_macs(tokens: int, channels: int) -> int:
    """Self-attention over N tokens, 4 N C^2 + 2 N^2 C (eq. 5)."""
    return 4 * tokens * channels**2 + 2 * tokens**2 * channels


def paper_qsca_macs(tokens: int, masked_ratio: float, channels: int) -> float:
    """2 N C^2 + 2 N' C^2 + 2 N N' C (eq. 6), with N' = (1 - r) N selected tokens; the paper prints N' = r N."""
    selected = (1 - masked_ratio) * tokens
    return 2 * tokens * channels**2 + 2 * selected * channels**2 + 2 * tokens * selected * channels


def qsca_macs(tokens: int, selected: int, seconds: int, channels: int) -> int:
    """What `QSCA` computes for one clip: 3 N C^2 + 2 N' C^2 + 5 T C^2 + 2 T (N + N') C.

    N tokens give keys and values (2 N C^2) after their own projection (N C^2); N' of them a query and an output
    (2 N' C^2); T seconds of sound a projection, query, key, value and output (5 T C^2). The sound's queries meet N keys,
    the selected queries T. Eq. 6 leaves out the two projections, the sound and the attention of the sound, and has N keys
    where there are T.

    Args:
        tokens: N, of the whole clip. selected: N'. seconds: T. channels: C.
    """
    projections = (3 * tokens + 2 * selected + 5 * seconds) * channels**2
    return projections + 2 * seconds * (tokens + selected) * channels


def count_macs(module: nn.Module, *inputs: Tensor | None) -> dict[str, int]:
    """Run a module once and count its operations.

    Returns:
        dict of every submodule's dotted name to its MACs; "" is the module itself. Matrix products and convolutions
        count, those inside attention too; normalisations, activations and resizing do not.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        module(*inputs)
    root = type(module).__name__
    counted = {"": counter.get_total_flops() // 2}
    for name, operations in counter.get_flop_counts().items():
        if name.startswith(root + "."):
            counted[name.removeprefix(root + ".")] = sum(operations.values()) // 2
    return counted


def parameters(module: nn.Module) -> int:
    """How many parameters a module has."""
    return sum(p.numel() for p in module.parameters())


def seconds_per_call(function: Callable[[], object], calls: int = 5, warm_up: int = 1) -> float:
    """Median wall time of a call, in seconds, after calls that are not counted; waits for the GPU where there is one."""
    times = []
    for call in range(warm_up + calls):
        started = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if call >= warm_up:
            times.append(time.perf_counter() - started)
    return statistics.median(times)
