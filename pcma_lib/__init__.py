"""PCMANet: audio-visual segmentation, module by module as the paper names them."""

from . import losses
from .audio import LogMel, Postprocessor, VGGish
from .avga import AVGA
from .cim import ConfidenceInducedMasking
from .clip import Clip
from .datasets import AVSS, MS3, S4
from .fusion import GuidedFusion
from .metrics import FMeasure, MeanIoU, SemanticIoU
from .model import AudioVisualModel
from .pcmanet import PCMANet, PCMAOutput
from .qsca import QSCA
from .tpavi import TPAVI, AVSBaseline
from .visual import VisualPyramid

__all__ = [
    "AVGA", "AVSBaseline", "AVSS", "AudioVisualModel", "Clip", "ConfidenceInducedMasking", "FMeasure", "GuidedFusion",
    "LogMel", "MS3", "MeanIoU", "PCMANet", "PCMAOutput", "Postprocessor", "QSCA", "S4", "SemanticIoU", "TPAVI", "VGGish",
    "VisualPyramid", "losses",
]  # fmt: skip
__version__ = "0.1.0"
