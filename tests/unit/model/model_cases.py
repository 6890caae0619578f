"""Small models and cheap random weights for the tests of the model room."""

from __future__ import annotations

import torch
import torchvision.models as tv
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.vision_transformer import VisionTransformer

from tlsearch.model.construction import empty_original, meta_original
from tlsearch.model.head import replace_head
from tlsearch.model.library import create_original, torchvision_weights
from tlsearch.model.staged import StagedModel
from tlsearch.model.staging import stage_model

# One or two small members of each family; the others run in the slow set.
FAMILY_MEMBERS = (
    "alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet inception_v3"
    " maxvit_t mnasnet0_5 mnasnet1_3 mobilenet_v2 mobilenet_v3_large mobilenet_v3_small regnet_x_400mf"
    " regnet_y_400mf resnet18 resnet50 shufflenet_v2_x0_5 shufflenet_v2_x2_0 squeezenet1_0"
    " squeezenet1_1 swin_t swin_v2_t vgg11_bn vit_b_32"
).split()

TIMM_MEMBERS = (
    "tf_efficientnet_lite0 efficientnet_b0 efficientnetv2_rw_t mobilenetv2_050 mobilenetv3_small_050"
    " tf_mobilenetv3_large_minimal_100 mnasnet_small tinynet_e mobilenetv4_conv_small_035 lcnet_035"
).split()


def smallest_size(name: str) -> int:
    """A small input that the model takes: the published minimum, but at least 32 px; any size will do for Swin."""
    if name.startswith("vit_"):
        return 2 * int(name.rpartition("_")[2])
    if name.startswith("swin"):
        return 64
    return max(32, int(torchvision_weights(name, None).meta["min_size"][0]))


def fill_cheaply(model: nn.Module, seed: int = 0) -> None:
    """Fills weights so that signals neither vanish nor explode, and moves the running statistics from 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_mean"):
                tensor.uniform_(-0.1, 0.1, generator=generator)
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.is_floating_point() and tensor.ndim > 1:
                bound = (3 / tensor[0].numel()) ** 0.5
                tensor.uniform_(-bound, bound, generator=generator)
            elif name.endswith("bias"):
                tensor.uniform_(-0.1, 0.1, generator=generator)


def filled_original(name: str, size: int) -> nn.Module:
    """A library's model with cheap random weights, in eval mode."""
    model = empty_original(name, None, size).eval()
    fill_cheaply(model)
    return model


def images(count: int, size: int, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def staged_with_new_head(model: nn.Module, name: str, size: int, num_classes: int = 3) -> StagedModel:
    fill_cheaply(model)
    staged = stage_model(model, name, size)
    replace_head(staged, num_classes=num_classes, seed=0)
    return staged


def tiny_shufflenet() -> StagedModel:
    """Batch norm everywhere."""
    return staged_with_new_head(tv.shufflenet_v2_x0_5(weights=None), "shufflenet_v2_x0_5", 32)


def tiny_mobilenet() -> StagedModel:
    """Batch norm, squeeze-excitation, a pretrained linear layer in stage4, dropout in the head."""
    return staged_with_new_head(tv.mobilenet_v3_small(weights=None), "mobilenet_v3_small", 32)


def tiny_convnext() -> StagedModel:
    """No batch norm; stochastic depth."""
    blocks = [CNBlockConfig(8, 16, 1), CNBlockConfig(16, 24, 1), CNBlockConfig(24, 32, 2), CNBlockConfig(32, None, 1)]
    return staged_with_new_head(ConvNeXt(blocks, stochastic_depth_prob=0.5, layer_scale=0.5), "tiny_convnext", 64)


def tiny_vit() -> StagedModel:
    """Bare parameters; dropout in every block."""
    model = VisionTransformer(32, 8, 4, 2, 16, 32, dropout=0.3, attention_dropout=0.2)
    return staged_with_new_head(model, "tiny_vit", 32)


def tiny_timm() -> StagedModel:
    """timm's fused batch norm and activation; stochastic depth."""
    model = create_original("timm/tinynet_e", None, 64, random_init=False)
    return staged_with_new_head(model, "timm/tinynet_e", 64)


def meta_staged(name: str) -> StagedModel:
    """The staged model with its original head on the meta device."""
    size = torchvision_weights(name, None).transforms().crop_size[0]
    return stage_model(meta_original(name, None, size), name, size)
