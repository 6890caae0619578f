"""The static table says what the installed libraries say."""

from __future__ import annotations

import pytest

from tlsearch.space import BackboneFacts, backbone_facts, backbone_names
from tlsearch.space.timm_table import TIMM_SQUASHED

TORCHVISION = [name for name in backbone_names() if not name.startswith("timm/")]
TIMM = [name for name in backbone_names() if name.startswith("timm/")]
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


def test_timm_names_and_weights_are_those_installed() -> None:
    timm = pytest.importorskip("timm")
    installed = set(timm.list_models())
    for name in TIMM:
        plain = name.removeprefix("timm/")
        assert plain in installed
        tags = {}
        for tagged in timm.list_pretrained(f"{plain}.*"):
            config = timm.models.get_pretrained_cfg(tagged)
            if config.crop_mode in (None, "center"):
                tags[tagged.partition(".")[2]] = config.input_size[1]
        default = timm.models.get_pretrained_cfg(plain, allow_unregistered=True)
        facts = facts_of(name)
        assert dict(facts.versions) == tags, name
        assert facts.image_size == default.input_size[1], name
        assert not tags or next(iter(facts.versions)) == default.tag, name
    for plain in TIMM_SQUASHED:
        assert timm.models.get_pretrained_cfg(plain).crop_mode == "squash"


@pytest.mark.slow
def test_timm_models_have_batch_norm_and_take_the_smallest_size() -> None:
    torch = pytest.importorskip("torch")
    timm = pytest.importorskip("timm")
    for name in TIMM:
        size = facts_of(name).min_size
        with torch.device("meta"), torch.no_grad():
            model = timm.create_model(name.removeprefix("timm/")).eval()
            assert any(isinstance(one, torch.nn.modules.batchnorm._BatchNorm) for one in model.modules()), name
            assert model(torch.empty(1, 3, size, size)).shape == (1, 1000), name


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
