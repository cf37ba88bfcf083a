"""Ears and eyes together: VGGish in front of PCMANet or of the baseline, as it is trained, saved and used."""

import inspect
from pathlib import Path

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import nn

from ..network.audio import VGGish
from ..network.pcmanet import PCMANet
from ..network.tpavi import AVSBaseline
from .checkpoints import load_tensors, read_settings, save_model

NETWORKS = {"pcmanet": PCMANet, "avs": AVSBaseline}


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
## Measured

{{ measured }}
"""


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
        network: "pcmanet" or "avs". options: the arguments of `PCMANet` or of `AVSBaseline`.

    Shapes:
        frames: [B, T, 3, H, W]; log_mel: [B, T, 1, 96, 64]; valid: [B, T] bool or None. Returns `PCMAOutput`.

    Raises:
        ValueError: a network that is not known.
    """

    def __init__(
        self, vggish_width=1.0, vggish_batch_norm=False, train_audio=False, listen=True, network="pcmanet", **options
    ):
        super().__init__()
        if network not in NETWORKS:
            raise ValueError(f"network must be one of {', '.join(NETWORKS)}; got {network!r}")
        self.settings = {"vggish_width": vggish_width, "vggish_batch_norm": vggish_batch_norm, "train_audio": train_audio}
        self.settings |= {"listen": listen, "network": network, **options}
        self.settings.pop("pretrained", None)
        self.train_audio, self.listen = train_audio, listen
        self.vggish = VGGish(vggish_width, vggish_batch_norm)
        self.network = NETWORKS[network](**options)
        if not train_audio:
            self.vggish.requires_grad_(False)

    def embed(self, log_mel):
        """[B, T, 1, 96, 64] -> [B, T, 128]."""
        if not self.listen:
            return log_mel.new_zeros(*log_mel.shape[:2], 128)
        with torch.set_grad_enabled(self.train_audio and torch.is_grad_enabled()):
            return self.vggish(log_mel)

    def forward(self, frames, log_mel, valid=None):
        return self.network(frames, self.embed(log_mel), valid)

    def save_pretrained(self, folder, metrics=None, **options):
        """A folder to share: model.safetensors, config.json and a model card with what was measured.

        `AudioVisualModel.from_pretrained(folder)` reads it, `push_to_hub` and the other options are huggingface_hub's.

        Args:
            metrics: what `evaluation.evaluate` gave; None says that nothing was measured.
        """
        from ..measure.evaluation import table

        card = {"settings": self.settings, "measured": table(metrics) if metrics else "Nothing was measured."}
        return super().save_pretrained(folder, config=self.settings, model_card_kwargs=card, **options)

    def save(self, path, metrics=None, half=False):
        save_model(path, self, self.settings, metrics, half)

    @classmethod
    def demo(cls):
        """The model that the package ships: trained on the demo data by notebook 08 with the preset `demo_long`."""
        return cls.load(Path(__file__).parents[1] / "demo_model.safetensors")

    @classmethod
    def load(cls, path):
        """A model that `save` wrote, in evaluation mode.

        Raises:
            FileNotFoundError: no such file. ValueError: not such a file, or its parameters do not fit its settings.
        """
        settings, _ = read_settings(path)
        name = str(settings.get("network", "pcmanet"))
        known = {*inspect.signature(cls).parameters, *inspect.signature(NETWORKS.get(name, PCMANet)).parameters}
        if unknown := set(settings) - known | set(settings) & {"pretrained", "options"}:
            raise ValueError(f"{path} has settings this version does not know: {sorted(unknown)}")
        state = load_tensors(path)
        try:
            with torch.device("meta"):  # shapes alone, before memory is taken for what a damaged file asks for
                cls(**settings).load_state_dict(state, assign=True)
            model = cls(**settings)
            model.load_state_dict(state)
        except Exception as error:
            raise ValueError(f"{Path(path)} does not fit its own settings: {error}") from None
        return model.eval()
