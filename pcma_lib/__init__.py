"""PCMANet: audio-visual segmentation, module by module as the paper names them."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

__version__ = "0.2.0"
_HOMES = {  # public names are imported when they are first asked for, so that `import pcma_lib` takes no time
    "network.audio": ("LogMel", "Postprocessor", "VGGish"),
    "network.visual": ("VisualPyramid",),
    "network.avga": ("AVGA",),
    "network.qsca": ("QSCA",),
    "network.cim": ("ConfidenceInducedMasking",),
    "network.fusion": ("GuidedFusion",),
    "network.pcmanet": ("PCMANet", "PCMAOutput"),
    "network.tpavi": ("TPAVI", "AVSBaseline"),
    "data.clip": ("Clip",),
    "data.avsbench": ("AVSS", "MS3", "S4"),
    "measure.metrics": ("FMeasure", "MeanIoU", "SemanticIoU"),
    "use.model": ("AudioVisualModel",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
__all__ = [*sorted(_HOME), "losses"]


@contextmanager
def needing(extra: str) -> Iterator[None]:
    """Say which extra of the package brings what an import in here does not find."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(f"{error}: pip install 'pcma-lib[{extra}]' brings it", name=error.name) from error


def __getattr__(name):
    if name == "losses":
        return import_module(".losses", __name__)
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with needing("train"):
        return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__():
    return sorted([*globals(), *__all__])
