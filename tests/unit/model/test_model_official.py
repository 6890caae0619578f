"""The libraries' own weights: taken as the libraries load them, looked for, named with their licence."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from model_cases import fill_cheaply
from safetensors.torch import save
from torch import Tensor
from web_site import Site

from tlsearch.core.errors import UserError, WeightsError
from tlsearch.core.types import WeightsSource
from tlsearch.model import WeightsCard, check_weights, default_transform, release_weights, resolve_weights, weights_card
from tlsearch.model.libraries.fast_init import empty_original

LITE0 = "timm/tf_efficientnet_lite0"


@pytest.fixture(autouse=True)
def _nothing_held() -> None:
    release_weights()


@pytest.fixture(scope="module")
def shuffle_state() -> dict[str, Tensor]:
    model = empty_original("shufflenet_v2_x0_5", None, 224)
    fill_cheaply(model)
    return model.state_dict()


def _file(path: Path) -> WeightsSource:
    return WeightsSource(kind="file", path=str(path))


def _publish(site: Site, monkeypatch: pytest.MonkeyPatch, content: bytes, digest: str = "") -> str:
    """Puts ShuffleNet's official weights on a server of this machine; gives their path."""
    from torchvision.models import ShuffleNet_V2_X0_5_Weights

    path = f"/shufflenetv2_x0.5-{digest or hashlib.sha256(content).hexdigest()[:10]}.pth"
    site.files[path] = content
    monkeypatch.setattr(type(ShuffleNet_V2_X0_5_Weights.DEFAULT), "url", f"{site.address}{path}")
    return path


def test_official_weights_are_fetched_once(
    monkeypatch: pytest.MonkeyPatch, shuffle_state: dict[str, Tensor], site: Site, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    content = io.BytesIO()
    torch.save(shuffle_state, content)
    path = _publish(site, monkeypatch, content.getvalue())
    weights = resolve_weights("shufflenet_v2_x0_5", WeightsSource())
    again = resolve_weights("shufflenet_v2_x0_5", WeightsSource())
    assert again is weights, "the next trial loads nothing"
    assert weights.id == "torchvision/shufflenet_v2_x0_5@IMAGENET1K_V1"
    release_weights()
    assert resolve_weights("shufflenet_v2_x0_5", WeightsSource()).digest == weights.digest
    assert site.asked == [path]


@pytest.mark.parametrize("page", [b"<!doctype html><title>Sign in</title>", b"not what the name says"])
def test_a_page_in_place_of_official_weights_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, site: Site, tmp_path: Path, page: bytes
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    _publish(site, monkeypatch, page, "0123abcdef")
    with pytest.raises(WeightsError, match="should have the sha256 0123abcdef"):
        resolve_weights("shufflenet_v2_x0_5", WeightsSource())
    assert not list(tmp_path.rglob("*.pth")) and not list(tmp_path.rglob("*.tmp"))


def test_without_a_network_the_ways_out_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*address: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setattr("tlsearch.data.fetch.fetcher._PAUSE_S", 0)
    with pytest.raises(WeightsError) as caught:
        resolve_weights("resnet50@IMAGENET1K_V1", WeightsSource())
    message = str(caught.value)
    for text in ("IMAGENET1K_V1", "no route to host", "a local file", "package", "resnet50: none"):
        assert text in message


def test_timm_without_a_network_names_the_ways_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))

    def refuse(*address: Any) -> None:
        raise OSError("cannot reach the hub")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setattr("tlsearch.data.fetch.fetcher._PAUSE_S", 0)
    with pytest.raises(WeightsError, match=r"cannot reach the hub.*Ways out"):
        resolve_weights(LITE0, WeightsSource())


def test_official_weights_are_looked_for_without_fetching_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []

    def look(url: str, headers: object = None) -> Exception | None:
        asked.append(url)
        return None if "IMAGENET" not in url and "resnet18" in url else URLError("no route to host")

    monkeypatch.setattr("tlsearch.model.weights.official.look", look)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    check_weights("resnet18", WeightsSource())
    assert asked == ["https://download.pytorch.org/models/resnet18-f37072fd.pth"]
    with pytest.raises(WeightsError, match=r"resnet50-11ad3fa6.pth\) of resnet50 .* no route to host.*Ways out"):
        check_weights("resnet50", WeightsSource())
    cached = tmp_path / "hub" / "checkpoints" / "resnet50-11ad3fa6.pth"
    cached.parent.mkdir(parents=True)
    cached.touch()
    check_weights("resnet50", WeightsSource())
    with pytest.raises(WeightsError, match="no weights file"):
        check_weights("resnet50", _file(tmp_path / "absent.pth"))
    with pytest.raises(UserError, match="unknown backbone 'nonsense'"):
        check_weights("resnet50", WeightsSource(transform="nonsense"))


def test_timms_weights_are_looked_for_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")
    asked: list[str] = []
    monkeypatch.setattr("tlsearch.model.weights.official.look", lambda url, headers: asked.append(url))
    check_weights("timm/vit_small_patch14_dinov2.lvd142m", WeightsSource())
    [url] = asked
    assert url.endswith("/timm/vit_small_patch14_dinov2.lvd142m/resolve/main/model.safetensors")
    monkeypatch.setattr("tlsearch.model.weights.official.look", lambda url, headers: URLError("no route to host"))
    with pytest.raises(WeightsError, match="no route to host.*Ways out"):
        check_weights("timm/vit_small_patch14_dinov2.lvd142m", WeightsSource())
    with pytest.raises(WeightsError, match="timm/efficientnet_b6 could not be loaded: timm publishes none"):
        check_weights("timm/efficientnet_b6", WeightsSource())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set"):
        check_weights("timm/vit_small_patch14_dinov2", WeightsSource())


def test_timms_pretrained_models_are_taken_as_timm_loads_them(monkeypatch: pytest.MonkeyPatch, site: Site) -> None:
    timm = pytest.importorskip("timm")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/nowhere")
    state = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    pages = "/timm/tf_efficientnet_lite0.in1k/resolve/main/"
    site.files[f"{pages}model.safetensors"] = save(state)
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_url", lambda hub, file, **_: f"{site.address}/{hub}/resolve/main/{file}"
    )
    weights = resolve_weights(LITE0, WeightsSource())
    assert site.asked == [f"{pages}model.safetensors"]
    assert weights.state is not None and torch.equal(weights.state["conv_stem.weight"], state["conv_stem.weight"])
    assert (weights.id, weights.licence) == ("timm/tf_efficientnet_lite0.in1k", "apache-2.0")


def test_versions_have_their_own_transform() -> None:
    none = WeightsSource(kind="none")
    assert resolve_weights("resnet50", none).transform.resize_size == 232
    assert resolve_weights("resnet50@IMAGENET1K_V1", none).transform.resize_size == 256
    assert resolve_weights("resnet50", WeightsSource(kind="none", version="IMAGENET1K_V1")).transform.resize_size == 256
    told = WeightsSource(kind="none", transform="IMAGENET1K_V1")
    assert resolve_weights("resnet50", told).transform.resize_size == 256
    told = WeightsSource(kind="none", transform="efficientnet_b0")
    assert resolve_weights("resnet50", told).transform == default_transform("efficientnet_b0")
    with pytest.raises(UserError, match="unknown backbone 'nonsense'"):
        resolve_weights("resnet50", WeightsSource(kind="none", transform="nonsense"))


def test_what_the_library_says_of_the_licence() -> None:
    default = WeightsSource()
    card = weights_card("resnet50@IMAGENET1K_V1", default)
    assert card.id == "torchvision/resnet50@IMAGENET1K_V1"
    assert card.licence == "not stated by torchvision (its code is BSD-3-Clause)"
    assert weights_card("vit_b_16@IMAGENET1K_SWAG_E2E_V1", default).licence.endswith("SWAG/blob/main/LICENSE")
    assert weights_card("resnet50", WeightsSource(kind="none")) == WeightsCard(id="none")
    assert weights_card("resnet50", _file(Path("/some/where.pth"))) == WeightsCard(id="file:where.pth")
    secret = WeightsSource(kind="url", url="https://host/a/b.pth?signature=secret")
    assert weights_card("resnet50", secret) == WeightsCard(id="url:https://host/a/b.pth")
    with pytest.raises(UserError, match="unknown backbone 'resnet55'"):
        weights_card("resnet55", default)


def test_timms_licences_are_named() -> None:
    pytest.importorskip("timm")
    dino = weights_card("timm/vit_small_patch14_dinov2.lvd142m", WeightsSource())
    assert (dino.id, dino.licence) == ("timm/vit_small_patch14_dinov2.lvd142m", "apache-2.0")
    assert weights_card("timm/convnextv2_atto@fcmae", WeightsSource()).licence == "cc-by-nc-4.0"


def test_none_has_no_state() -> None:
    weights = resolve_weights("resnet18", WeightsSource(kind="none"))
    assert (weights.id, weights.digest, weights.state) == ("none", "none:resnet18", None)
