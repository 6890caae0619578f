"""What ``check`` says of backbones: stages, sizes, weights, licences; errors where one cannot be had."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import pytest
from rich.console import Console

from tlsearch.app.checks.check_file import check_file
from tlsearch.cli.tables.data_tables import backbone_table
from tlsearch.core.errors import UserError
from tlsearch.space.libraries.backbones import backbone_names

PARTS = ["stem", "stage1", "stage2", "stage3", "stage4", "head"]


def _file(folder: Path, backbones: list[str], weights: str) -> Path:
    path = folder / "space.yaml"
    path.write_text(
        "name: some\ndata: {source: digits}\n"
        f"weights: {{{', '.join(f'{name}: {weights}' for name in backbones)}}}\n"
        f"space: {{backbone: [{', '.join(backbones)}]}}\n"
    )
    return path


@pytest.mark.slow
def test_all_80_in_one_file(tmp_path: Path) -> None:
    names = [name for name in backbone_names() if not name.startswith("timm/")]
    report = check_file(_file(tmp_path, names, "none"))
    assert report.ok and [one.described.name for one in report.backbones] == names
    assert len(names) == 80
    for one in report.backbones:
        stages = one.described.stages
        assert [stage.name for stage in stages] == PARTS
        assert all(stage.parameters > 0 and stage.modules for stage in stages)
        assert 0 < one.facts.min_size <= one.described.image_size
        assert one.weights.id == "none"
        counts = [one.described.trainable_parameters[depth] for depth in range(6)]
        assert counts == sorted(set(counts)) and counts[-1] == sum(stage.parameters for stage in stages)


def test_official_weights_are_named_with_their_licence_and_only_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlsearch.model.weights.official.look", lambda url, headers=None: None)
    report = check_file(_file(tmp_path, ["resnet50@IMAGENET1K_V1", "timm/vit_tiny_patch16_224"], "default"))
    assert report.ok
    resnet, vit = report.backbones
    assert resnet.weights.id == "torchvision/resnet50@IMAGENET1K_V1"
    assert resnet.weights.licence.startswith("not stated by torchvision")
    assert vit.weights.id == "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k" and vit.weights.licence == "apache-2.0"
    assert (vit.described.image_size, vit.facts.min_size, vit.facts.size_rule()) == (224, 16, "multiples of 16 px")
    console = Console(width=200, record=True)
    console.print(backbone_table(resnet))
    text = console.export_text()
    assert "torchvision/resnet50@IMAGENET1K_V1" in text and "conv1 .. maxpool" in text and "at least 32 px" in text


def test_what_cannot_be_had_or_built_is_a_problem_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def describe(name: str, **options: object) -> None:
        raise UserError(f"no staging rule fits {name}")

    monkeypatch.setattr("tlsearch.model.weights.official.look", lambda url, headers=None: URLError("no route to host"))
    monkeypatch.setattr("tlsearch.model.describe_model", describe)
    path = _file(tmp_path, ["resnet18", "mobilenet_v2"], "default")
    report = check_file(path)
    assert not report.backbones
    assert len(report.problems) == 4
    assert sum("no route to host" in problem.message for problem in report.problems) == 2
    assert sum("no staging rule fits" in problem.message for problem in report.problems) == 2
    assert all(problem.line for problem in report.problems)


def test_parameters_of_adapted_stages_are_counted_for_the_ways_of_the_space(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(
        "name: a\ndata: {source: digits, image_size: 32}\nweights: {vit_b_32: none, resnet18: none}\n"
        "space: {backbone: [vit_b_32, resnet18], unfreeze_depth: 1, adapt: [none, lora, norm], lora_rank: [4, 32]}\n"
    )
    report = check_file(path)
    assert report.ok
    transformer, cnn = report.backbones
    assert list(transformer.adapted) == ["lora 4", "norm"] and list(cnn.adapted) == ["norm"]
    for backbone in report.backbones:
        whole = backbone.described.trainable_parameters
        for counts in backbone.adapted.values():
            assert counts[0] == whole[0] and whole[0] < counts[1] < whole[1] / 100
    # four linear layers in each of three blocks: the sides of a matrix times the rank; two affine pairs and the last
    assert transformer.adapted["lora 4"][1] - 7690 == 3 * 4 * (768 + 2304 + 768 + 768 + 2 * (768 + 3072))
    assert transformer.adapted["norm"][1] - 7690 == 7 * 2 * 768
