"""Small models and cheap random weights for the tests of the model room."""

from __future__ import annotations

import torch
import torchvision.models as tv
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.vision_transformer import VisionTransformer

from tlsearch.model.build import replace_head
from tlsearch.model.libraries.fast_init import empty_original, meta_original
from tlsearch.model.libraries.libraries import create_original, native_size, torchvision_weights
from tlsearch.model.staging.cut import stage_model
from tlsearch.model.staging.staged import StagedModel

# One or two small members of each family.
FAMILY_MEMBERS = (
    "alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet inception_v3"
    " maxvit_t mnasnet0_5 mnasnet1_3 mobilenet_v2 mobilenet_v3_large mobilenet_v3_small regnet_x_400mf"
    " regnet_y_400mf resnet18 resnet50 shufflenet_v2_x0_5 shufflenet_v2_x2_0 squeezenet1_0"
    " squeezenet1_1 swin_t swin_v2_t vgg11_bn vit_b_32"
).split()

# timm's by the module of their family, with a small input that they take.
TIMM_MEMBERS: dict[str, dict[str, int]] = {
    "beit": {"beit_base_patch16_224": 32},
    "byobnet": {"gernet_s": 64, "mobileone_s0": 64},
    "convnext": {"convnext_atto": 64, "convnextv2_atto": 64, "convnext_tiny_hnf": 64},
    "cspnet": {"cs3darknet_s": 64, "darknet17": 64},
    "davit": {"davit_tiny": 64},
    "deit": {"deit_tiny_patch16_224": 32, "deit3_small_patch16_224": 32},
    "densenet": {"densenet121": 64},
    "edgenext": {"edgenext_xx_small": 64},
    "efficientnet": {
        **dict.fromkeys(["tf_efficientnet_lite0", "efficientnet_b0", "efficientnetv2_rw_t", "mobilenetv2_050"], 64),
        **dict.fromkeys(["mnasnet_small", "tinynet_e"], 64),
    },
    "eva": {
        "eva02_tiny_patch14_224": 28,
        "vit_small_patch16_dinov3": 32,
        "vit_small_patch16_rope_224": 32,
        "vit_pe_core_tiny_patch16_384": 32,
    },
    "fastvit": {"fastvit_t8": 64},
    "focalnet": {"focalnet_tiny_srf": 64},
    "hgnet": {"hgnetv2_b0": 64},
    "maxxvit": {"maxvit_rmlp_pico_rw_256": 256, "coatnet_nano_rw_224": 224, "coatnet_0_224": 224},
    "mobilenetv3": dict.fromkeys(
        ["mobilenetv3_small_050", "tf_mobilenetv3_large_minimal_100", "mobilenetv4_conv_small_035", "lcnet_035"], 64
    ),
    "nextvit": {"nextvit_small": 64},
    "nfnet": {"nf_regnet_b0": 64},
    "regnet": {"regnetx_002": 64, "regnety_002": 64, "regnetz_005": 64},
    "resnet": {"resnet10t": 64, "resnet18": 64, "seresnet18": 64, "ecaresnet26t": 64, "resnest14d": 64},
    "resnetv2": {"resnetv2_18": 64},
    "swin_transformer": {"swin_tiny_patch4_window7_224": 64},
    "swin_transformer_v2": {"swinv2_tiny_window8_256": 64},
    "tiny_vit": {"tiny_vit_5m_224": 224},
    "vgg": {"vgg11_bn": 32},
    "vision_transformer": {
        "vit_tiny_patch16_224": 32,
        "vit_small_patch14_dinov2": 28,
        "vit_small_patch14_reg4_dinov2": 28,
        "vit_base_patch32_clip_224": 64,
        "vit_base_patch16_siglip_224": 32,
        "test_vit3": 32,
    },
    "vision_transformer_hybrid": {"vit_tiny_r_s16_p8_224": 64},
    "vovnet": {"ese_vovnet19b_slim": 64},
}
TIMM_SIZES = {name: size for members in TIMM_MEMBERS.values() for name, size in members.items()}


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
            elif name.endswith(("running_var", "gamma", "layer_scale")):  # a library's 1e-5 would hide what it scales
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
    size = native_size(name)
    return stage_model(meta_original(name, None, size), name, size)
