"""A stem that was pretrained on RGB, for images of another number of channels.

The first convolution, or the patch embedding of a transformer, gets other input weights. For one channel they are the
sum over RGB, which answers a grey image as RGB answers the image repeated. For N channels the RGB weights are repeated,
times 3 / N, so that the sums that they give keep their size. That is timm's ``adapt_input_conv`` (Wightman 2019,
timm/models/_manipulate.py). A random backbone gets a random convolution.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tlsearch.core.errors import UserError
from tlsearch.model.libraries.fast_init import forked_seed
from tlsearch.model.staging.staged import StagedModel

_RGB = 3


@torch.no_grad()
def adapt_stem(model: StagedModel, channels: int, *, random_seed: int | None = None) -> None:
    """Lets a model take images of another number of channels.

    Args:
        model: With the weights of RGB images, or on the meta device.
        channels: From 1; 3 leaves the model as it is.
        random_seed: Of a new convolution, for a backbone without pretrained weights.

    Raises:
        UserError: The stem has no convolution over RGB.
    """
    if channels == _RGB:
        return
    convolution = _first_convolution(model)
    model.channels = convolution.in_channels = channels
    weights = adapted_weights(convolution.weight, channels)
    convolution.weight = nn.Parameter(weights, requires_grad=convolution.weight.requires_grad)
    if random_seed is not None:
        with forked_seed(random_seed):
            convolution.reset_parameters()
    if hasattr(model.stem, "input_rescale"):  # GoogLeNet's and Inception's, with constants of RGB
        model.stem.input_rescale = nn.Identity()


def adapted_weights(weights: Tensor, channels: int) -> Tensor:
    """The weights of a convolution over RGB, (O, 3, H, W), as those of one over ``channels``: (O, channels, H, W)."""
    if channels == 1:
        return weights.sum(1, keepdim=True)
    repeated = weights.repeat(1, math.ceil(channels / _RGB), 1, 1)[:, :channels]
    return repeated * (_RGB / channels)


def _first_convolution(model: StagedModel) -> nn.Conv2d:
    found = next((one for one in model.stem.modules() if isinstance(one, nn.Conv2d)), None)
    if found is None or found.in_channels != _RGB or found.groups != 1:
        raise UserError(
            f"{model.backbone} takes RGB images alone: its stem does not begin with a convolution over three channels"
        )
    return found
