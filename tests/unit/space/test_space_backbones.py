"""The static table says what the installed libraries say."""

from __future__ import annotations

import pytest
from timm_rows import published, row_of, table

from tlsearch.space import BackboneFacts, backbone_facts
from tlsearch.space.dimensions import PARAMETERS
from tlsearch.space.libraries.backbone_tables import _lines, timm_rows
from tlsearch.space.libraries.backbones import backbone_names, split_version

TORCHVISION = [name for name in backbone_names() if not name.startswith("timm/")]
UNTRAINED = {"IMAGENET1K_FEATURES"}  # of vgg16: its classifier layers are no weights


def facts_of(name: str) -> BackboneFacts:
    facts = backbone_facts(name)
    assert facts is not None
    return facts


def test_torchvision_names_and_weights_are_those_installed() -> None:
    models = pytest.importorskip("torchvision.models")
    assert sorted(models.list_models(module=models)) == TORCHVISION
    assert len(TORCHVISION) == 80
    for name in TORCHVISION:
        enum = models.get_model_weights(name)
        crops = {weights.name: weights.transforms().crop_size[0] for weights in enum if weights.name not in UNTRAINED}
        facts = facts_of(name)
        assert dict(facts.versions) == crops, name
        assert next(iter(facts.versions)) == enum.DEFAULT.name, name
        assert facts.image_size == crops[enum.DEFAULT.name] and facts.valid_size(facts.image_size), name


def check_on_meta(names: list[str]) -> None:
    """Batch norm and valid sizes, seen on models built without memory."""
    torch = pytest.importorskip("torch")
    models = pytest.importorskip("torchvision.models")
    for name in names:
        facts = facts_of(name)
        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        with torch.device("meta"), torch.no_grad():
            model = models.get_model(name, weights=None, **options).eval()
            norms = [one for one in model.modules() if isinstance(one, torch.nn.modules.batchnorm._BatchNorm)]
            assert bool(norms) == facts.has_batch_norm, name
            for size in (facts.min_size, facts.min_size + 1, 100):
                # the multiples of ViT and MaxViT are for models that are built for the size
                if facts.valid_size(size) and facts.size_multiple == 1:
                    assert model(torch.empty(1, 3, size, size)).shape == (1, 1000), (name, size)


def test_batch_norm_and_smallest_sizes_of_small_ones() -> None:
    check_on_meta(["alexnet", "mobilenet_v3_small", "resnet18", "squeezenet1_1", "vgg11_bn", "vit_b_32"])


@pytest.mark.slow
def test_batch_norm_and_smallest_sizes_of_one_of_each_family() -> None:
    families = {facts_of(name).family: name for name in TORCHVISION if facts_of(name).family != "regnet"}
    check_on_meta(sorted(families.values()))


@pytest.mark.slow
def test_batch_norm_and_smallest_sizes_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    regnet = pytest.importorskip("torchvision.models.regnet")
    original = regnet.BlockParams.from_init_params.__func__

    def on_cpu(cls: type, *args: object, **options: object) -> object:
        with torch.device("cpu"):  # it computes the widths with tensors
            return original(cls, *args, **options)

    monkeypatch.setattr(regnet.BlockParams, "from_init_params", classmethod(on_cpu))
    check_on_meta(TORCHVISION)


@pytest.fixture
def same_timm() -> None:
    timm = pytest.importorskip("timm")
    if _lines()[0] != f"timm {timm.__version__}":
        pytest.skip(f"the table is of {_lines()[0]}, installed is {timm.__version__}")


@pytest.mark.usefixtures("same_timm")
def test_timm_names_and_weights_are_those_installed() -> None:
    for row in timm_rows():
        size, tags = published(row.name)
        assert row.image_size == size, row.name
        assert dict(row.versions) == {tag.partition(":")[0]: int(tag.partition(":")[2] or size) for tag in tags}
        assert not tags or next(iter(row.versions)) == tags[0].partition(":")[0], row.name


@pytest.mark.usefixtures("same_timm")
@pytest.mark.parametrize(
    "name",
    [
        "beitv2_base_patch16_224",
        "convnext_atto",
        "eva02_tiny_patch14_224",
        "maxvit_rmlp_pico_rw_256",
        "mobilenetv4_conv_small",
        "regnety_002",
        "resnet18",
        "resnetaa34d",
        "swin_tiny_patch4_window7_224",
        "vit_small_patch14_reg4_dinov2",
        "vit_tiny_patch16_224",
    ],
)
def test_models_of_timm_are_as_the_table_says(name: str) -> None:
    assert row_of(name) in _lines()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("same_timm")
def test_the_whole_table_of_timm_is_as_installed() -> None:
    """To write it again: python tests/support/timm_rows.py > tlsearch/space/libraries/timm_models.txt"""
    assert list(table()) == _lines()


def test_timms_own_way_to_name_a_version() -> None:
    assert split_version("timm/vit_small_patch14_dinov2.lvd142m") == ("timm/vit_small_patch14_dinov2", "lvd142m")
    assert split_version("timm/resnet18@a1_in1k") == ("timm/resnet18", "a1_in1k")
    assert split_version("timm/resnet18") == ("timm/resnet18", None)
    assert facts_of("timm/vit_small_patch14_dinov2.lvd142m").image_size == 518
    assert facts_of("timm/convnext_tiny.fb_in22k_ft_in1k_384").image_size == 384
    problem = PARAMETERS["backbone"].problem
    for right in ("timm/vit_small_patch14_dinov2.lvd142m", "timm/resnet18@a1_in1k", "timm/eva02_tiny_patch14_224"):
        assert problem(right) is None
    assert "no weights 'lvd142n'; did you mean 'lvd142m'" in str(problem("timm/vit_small_patch14_dinov2.lvd142n"))
    assert "no weights ''; it may be a1_in1k" in str(problem("timm/resnet18."))


def test_tags_of_a_newer_timm_are_left_to_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = PARAMETERS["backbone"].problem
    for installed, is_known in (("1.0.15", False), ("1.1.0", True), ("99.0.0.dev0", True)):
        monkeypatch.setattr(
            "tlsearch.space.libraries.backbone_tables.version", lambda name, installed=installed: installed
        )
        assert (problem("timm/resnet18.a_new_tag") is None) == is_known
        assert "no weights" in str(problem("resnet18@a_new_tag"))


def test_a_timm_model_without_a_rule_says_which_families_have_one() -> None:
    text = str(PARAMETERS["backbone"].problem("timm/xcit_nano_12_p8_224"))
    assert "is not known" in text and "convnext" in text and "vision_transformer" in text


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("resnet18", (32, 33, 96, 224), (0, 16, 31)),
        ("inception_v3", (75, 299), (74,)),
        ("alexnet", (63, 224), (62,)),
        ("vit_b_16", (16, 96, 224, 240), (15, 100, 225)),
        ("vit_h_14", (14, 224, 518), (96, 512)),
        ("maxvit_t", (224, 448), (96, 223, 225, 336)),
        ("timm/tf_efficientnet_lite0", (32, 96), (31,)),
        ("timm/vit_small_patch14_dinov2", (14, 224, 518), (96, 512)),
        ("timm/vit_so400m_patch14_siglip_384", (224, 384), (385, 256)),
        ("timm/swin_tiny_patch4_window7_224", (32, 64, 100), (28, 65)),
        ("timm/maxvit_rmlp_pico_rw_256", (256,), (255, 512)),
        ("timm/seresnextaa101d_32x8d", (32, 96, 288), (48, 100)),
    ],
)
def test_valid_sizes(name: str, right: tuple[int, ...], wrong: tuple[int, ...]) -> None:
    facts = facts_of(name)
    assert all(facts.valid_size(size) for size in right)
    assert not any(facts.valid_size(size) for size in wrong)


def test_a_version_sets_the_size() -> None:
    assert facts_of("vit_b_16").image_size == 224
    assert facts_of("vit_b_16@IMAGENET1K_SWAG_E2E_V1").image_size == 384
    assert facts_of("vit_b_16@IMAGENET1K_SWAG_E2E_V1").name == "vit_b_16"
    assert backbone_facts("resnet81") is None
