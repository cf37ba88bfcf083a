"""Batch norm over the clips of all processes, so that what is learnt does not depend on how many share a step."""

import torch
from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.distributed.nn.functional import all_reduce


class SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """`torch.nn.SyncBatchNorm` for processes on CPUs, where torch has none.

    Shapes:
        x: [N, C, ...], in training N may differ from process to process. Returns the same shape.
    """

    def _check_input_dim(self, x):
        pass

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x)
        channels = (1, -1, *[1] * (x.ndim - 2))
        others = [d for d in range(x.ndim) if d != 1]
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        sums = all_reduce(torch.cat([values.sum(others), values.new_tensor([values.numel() / self.num_features])]))
        mean, count = sums[:-1] / sums[-1], sums[-1].detach()
        centred = values - mean.view(channels)
        variance = all_reduce(centred.square().sum(others)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(channels) + self.bias.view(channels)).to(x.dtype)


def share_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """Let every batch norm of a model see the whole step; parameters, buffers and their names stay.

    Raises:
        ValueError: on the CPU, an encoder whose batch norm is a kind of its own.
    """
    if device.type != "cpu":
        return convert_sync_batchnorm(model)
    for name, module in list(model.named_modules()):
        if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d):
            shared = SharedBatchNorm(module.num_features, module.eps, module.momentum).train(module.training)
            shared._parameters, shared._buffers = module._parameters, module._buffers
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, shared)
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            kind = type(module).__name__
            raise ValueError(f"{name} is a {kind}, which several processes can't share on the CPU; use one process")
    return model
