"""A published PCMANet or AVS checkpoint, with VGGish in front, as one of this project's model files.

    pcma-data convert --checkpoint S4_pcmanet.pth --backbone pvt_v2_b5 --out results/s4.safetensors
    pcma-train evaluate --checkpoint results/s4.safetensors --dataset s4 --data data/AVSBench/Single-source

The model computes as it was trained, the published code's faults included.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pcma_lib
from pcma_lib import AudioVisualModel, AVSBaseline, PCMANet
from pcma_lib.data.files import resolve
from pcma_lib.training.origin import ORIGIN
from pcma_lib.use.checkpoints import load_tensors, load_vggish
from pcma_lib.use.inputs import FRAME_AT

from .commands import command, command_parser


def convert(
    checkpoint: Path, vggish: Path, backbone: str = "resnet50", num_classes: int = 1, seconds: int | None = None
) -> AudioVisualModel:
    """The checkpoint's network behind VGGish; AVS where it holds TPAVI's parameters, else PCMANet.

    Raises:
        FileNotFoundError: a file is missing. ValueError: a file that is no checkpoint, or parameters that do not fit; all
        are named.
    """
    state = load_tensors(checkpoint)
    settings = {"backbone": backbone, "num_classes": num_classes}
    try:
        if any("tpavi_b" in key for key in state):
            network = AVSBaseline.from_released(state, backbone, num_classes)
            settings |= {"network": "avs"}
        else:
            network = PCMANet.from_released(state, backbone, num_classes, seconds)
            settings |= {"groups": network.avga[0].groups, "as_released": True, "seconds": network.seconds}
    except ValueError as error:
        raise ValueError(f"{checkpoint}: {error}") from None
    model = AudioVisualModel(**settings)
    model.network.load_state_dict(network.state_dict())
    model.vggish.load_state_dict(load_vggish(vggish).state_dict())
    model.inputs |= {"frame_at": FRAME_AT}
    model.origin = dict.fromkeys(ORIGIN) | {"version": pcma_lib.__version__, "released": checkpoint.name}
    return model.eval()


@command
def main(arguments: Sequence[str] | None = None) -> None:
    parser = command_parser("convert", __doc__)
    parser.add_argument("--checkpoint", required=True, type=Path, help="the published .pth")
    parser.add_argument("--out", required=True, type=Path, help="the .safetensors to write")
    parser.add_argument("--backbone", default="resnet50", choices=("resnet50", "pvt_v2_b5"))
    parser.add_argument("--num-classes", default=1, type=int, help="71 for AVSS")
    parser.add_argument("--seconds", type=int, help="of a clip in its training; left out: 10 with classes, else 5")
    parser.add_argument("--vggish", default=resolve("weights/vggish.safetensors"), type=Path, help="see pcma-data weights")
    given = parser.parse_args(arguments)
    convert(given.checkpoint, given.vggish, given.backbone, given.num_classes, given.seconds).save(given.out)
