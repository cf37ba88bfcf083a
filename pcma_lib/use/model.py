"""Ears and eyes together: VGGish in front of PCMANet or of the baseline, as it is trained, saved and used."""

import inspect
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from torch import nn

from ..network.audio import VGGish
from ..network.pcmanet import PCMANet, PCMAOutput
from ..network.tpavi import AVSBaseline
from ..registry import Registry
from .checkpoints import load_tensors, read_settings, save_model
from .inputs import ASSUMED, check_inputs

NETWORKS = Registry("network", "use.model", pcmanet=PCMANet, avs=AVSBaseline)
register_network = NETWORKS.register
CARD = """---
{{ card_data }}
---

# {{ settings.network }} for audio-visual segmentation

Marks the pixels of what is sounding in a video's frames. Trained and measured with pcma_lib
([PCMANet, arXiv:2406.02345](https://arxiv.org/abs/2406.02345)).

```python
from pcma_lib import AudioVisualModel
model = AudioVisualModel.from_pretrained("FOLDER_OR_NAME")
```

## Settings

{% for key, value in settings.items() %}- {{ key }}: {{ value }}
{% endfor %}
## Inputs

{% for key, value in inputs.items() %}- {{ key }}: {{ value }}
{% endfor %}
## Origin

{% for key, value in origin.items() %}- {{ key }}: {{ "unknown" if value is none else value }}
{% else %}Unknown.
{% endfor %}
## Measured

{{ measured }}
"""


def network_name(kind: type) -> str:
    """What a checkpoint calls a network's class: a key of NETWORKS for this project's own, else module.Class."""
    own = (name for name, known in NETWORKS.items() if known is kind and kind.__module__.startswith("pcma_lib."))
    return next(own, f"{kind.__module__}.{kind.__qualname__}")


def find_network(name: str | type) -> type:
    """The class that `network_name` or a key of NETWORKS stands for; a class stands for itself.

    Raises:
        ValueError: none that is known.
    """
    if isinstance(name, type):
        return name
    known = {network_name(kind): kind for kind in NETWORKS.values()} | NETWORKS
    return known.get(str(name)) or NETWORKS.find(str(name))


class AudioVisualModel(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="pcma_lib",
    tags=["audio-visual-segmentation"],
    license="mit",
    model_card_template=CARD,
):
    """From frames and log-mel examples to masks.

    Args:
        vggish_width, vggish_batch_norm: 1.0 and False fit the released VGGish; others are for training it from scratch.
        train_audio: False freezes VGGish (the paper); True trains it along.
        listen: False replaces the embedding by zeros: the same network, seeing only (the vision-only control).
        network: "pcmanet" or "avs", a registered name, a class that is called as they are, or such a network itself.
        options: the arguments of that class; a checkpoint keeps them.

    Attributes:
        settings: the arguments. inputs: what the model was shown in training, as in `inputs.ASSUMED`. origin: where it
        comes from, see `training.origin.describe`; empty where nothing is known. All three are saved and loaded.

    Shapes:
        frames: [B, T, 3, H, W]; log_mel: [B, T, 1, 96, 64]; valid: [B, T] bool or None. Returns `PCMAOutput`.

    Raises:
        ValueError: a network that is not known.
    """

    def __init__(
        self,
        vggish_width: float = 1.0,
        vggish_batch_norm: bool = False,
        train_audio: bool = False,
        listen: bool = True,
        network: str | type | nn.Module = "pcmanet",
        **options: Any,
    ) -> None:
        super().__init__()
        kind = type(network) if isinstance(network, nn.Module) else find_network(network)
        self.settings = {"vggish_width": vggish_width, "vggish_batch_norm": vggish_batch_norm, "train_audio": train_audio}
        self.settings |= {"listen": listen, "network": network_name(kind), **options}
        self.settings.pop("pretrained", None)
        self.inputs, self.origin = dict(ASSUMED), {}
        self.train_audio, self.listen = train_audio, listen
        self.vggish = VGGish(vggish_width, vggish_batch_norm)
        self.network = network if isinstance(network, nn.Module) else kind(**options)
        if not train_audio:
            self.vggish.requires_grad_(False)

    def embed(self, log_mel: torch.Tensor) -> torch.Tensor:
        """[B, T, 1, 96, 64] -> [B, T, 128]."""
        if not self.listen:
            return log_mel.new_zeros(*log_mel.shape[:2], 128)
        with torch.set_grad_enabled(self.train_audio and torch.is_grad_enabled()):
            return self.vggish(log_mel)

    def forward(self, frames: torch.Tensor, log_mel: torch.Tensor, valid: torch.Tensor | None = None) -> PCMAOutput:
        return self.network(frames, self.embed(log_mel), valid)

    def picture_size(self, given: int | None = None) -> int:
        """Pixels a side of the pictures to show the model: as in its training, or as given, which is then printed."""
        size = self.inputs["image_size"]
        if given in (None, size):
            return size
        print(f"Pictures of {given} px, as asked for; the checkpoint says {size} px.")
        return given

    def said(self) -> dict:
        """What is saved beside the parameters. Inputs that nobody has set are left out, as they are not known."""
        settings = {**self.settings, "network": network_name(type(self.network))}
        known = self.origin or self.inputs != ASSUMED
        return {"settings": settings, "inputs": {**ASSUMED, **self.inputs} if known else None, "origin": self.origin or None}

    def save(self, path: str | Path, metrics: dict | None = None, half: bool = False) -> None:
        """Write a file that `load` reads; half=True stores 16-bit floats, see `checkpoints.save_model`."""
        save_model(path, self, metrics=metrics, half=half, **self.said())

    def save_pretrained(self, folder: str | Path, metrics: dict | None = None, **options: Any) -> str | None:
        """A folder to share: model.safetensors, config.json and a model card with what was measured.

        `AudioVisualModel.from_pretrained(folder)` reads it, `push_to_hub` and the other options are huggingface_hub's.

        Args:
            metrics: what `evaluation.evaluate` gave; None says that nothing was measured.
        """
        from ..measure.evaluation import table

        said = self.said()
        config = said["settings"] | {k: said[k] for k in ("inputs", "origin") if said[k]}
        card = {"settings": said["settings"], "inputs": self.inputs, "origin": self.origin}
        card["measured"] = table(metrics) if metrics else "Nothing was measured."
        given = {k: v for k, v in options.items() if v is not None}
        return super().save_pretrained(folder, **{"config": config, "model_card_kwargs": card, **given})

    def _save_pretrained(self, folder):
        self.save(folder / "model.safetensors")

    @classmethod
    def _from_pretrained(
        cls, *, model_id, map_location="cpu", strict=True, network="pcmanet", inputs=None, origin=None, token=None,
        revision=None, cache_dir=None, force_download=False, local_files_only=False, **settings,
    ):  # fmt: skip
        path = Path(model_id, "model.safetensors")
        if not Path(model_id).is_dir():
            where = {"revision": revision, "cache_dir": cache_dir, "token": token}
            where |= {"force_download": force_download, "local_files_only": local_files_only}
            path = hf_hub_download(model_id, path.name, **where)
        kind = network if isinstance(network, (type, nn.Module)) else None
        settings["network"] = read_settings(path)[0].get("network") if kind else network
        return cls._built(path, settings, inputs, origin, kind).to(map_location)

    @classmethod
    def demo(cls) -> "AudioVisualModel":
        """The model that the package ships: trained on the demo data by notebook 08 with the preset `demo_long`."""
        return cls.load(Path(__file__).parents[1] / "demo_model.safetensors")

    @classmethod
    def load(cls, path: str | Path, network: type | nn.Module | None = None) -> "AudioVisualModel":
        """A model that `save` wrote, in evaluation mode.

        Args:
            network: the class of its network where that is not registered, or a network of that class, which then takes the
                parameters.

        Raises:
            FileNotFoundError: no such file. ValueError: not such a file, a network of another class, parameters that do not
            fit its settings or are not finite, or inputs that are normalised otherwise.
        """
        settings, _, inputs, origin = read_settings(path)
        return cls._built(path, settings, inputs, origin, network)

    @classmethod
    def _built(cls, path, settings, inputs, origin, network):
        recorded = settings.get("network", "pcmanet")
        try:
            kind = type(network) if isinstance(network, nn.Module) else find_network(network or recorded)
        except ValueError:
            kind = None
        module, _, name = str(recorded).rpartition(".")
        moved = module == "__main__" and kind and kind.__qualname__ == name  # from a notebook to a module, as it should be
        if kind is None or network_name(kind) != recorded and not moved:
            cure = f"import {name} from {module} and pass network={name}" if module else f"expected {' or '.join(NETWORKS)}"
            if module == "__main__":
                cure = (
                    f"that class was written in a notebook or script. Run its lines here, or put them in a module and "
                    f"import {name} from it, and pass network={name}"
                )
            other = f", but this would load it as {network_name(kind)}" if kind else ""
            raise ValueError(f"{path} holds the network {recorded}{other}; {cure}")
        takes = inspect.signature(kind).parameters
        known = {*inspect.signature(cls).parameters, *takes}
        unknown = set() if any(p.kind is p.VAR_KEYWORD for p in takes.values()) else set(settings) - known
        if unknown := unknown | set(settings) & {"pretrained", "options"}:
            raise ValueError(f"{path} has settings this version does not know: {sorted(unknown)}")
        state, settings = load_tensors(path), {**settings, "network": kind}
        try:
            if isinstance(network, nn.Module):
                settings["network"] = network
            else:
                with torch.device("meta"):  # shapes alone, before memory is taken for what a damaged file asks for
                    cls(**settings).load_state_dict(state, assign=True)
            model = cls(**settings)
            model.load_state_dict(state)
        except Exception as error:
            raise ValueError(f"{Path(path)} does not fit its own settings: {error}") from None
        model.inputs, model.origin = check_inputs(path, inputs), origin or {}
        return model.eval()
