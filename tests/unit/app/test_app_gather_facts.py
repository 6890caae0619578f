"""Facts of a search: counted once, kept with it, and counted again where they are missing."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.app.catalog.gather_facts import (
    FACTS,
    complete_facts,
    gather_facts,
    keep_facts,
    read_facts,
    read_space_file,
    write_facts,
)
from tlsearch.core.types import TrialConfig
from tlsearch.data import load_index

SMALL, LARGE = TrialConfig(backbone="mobilenet_v3_small"), TrialConfig(backbone="resnet18")

SPACE = """
name: facts
data: {source: digits, image_size: 32}
weights: {mobilenet_v3_small: none, resnet18: none}
space: {backbone: [mobilenet_v3_small, resnet18]}
search: {trials: 2, max_epochs: 9, scheduler: {asha: {grace_period: 1, reduction_factor: 3}}}
"""


@pytest.fixture
def entry(tmp_path: Path) -> SearchEntry:
    (tmp_path / "resolved.yaml").write_text(SPACE)
    return SearchEntry(
        search_id="facts",
        experiment="facts",
        directory=str(tmp_path),
        source="",
        tracking_uri="sqlite:///absent.db",
        metric="val_accuracy",
        created=0.0,
    )


def test_gathered_facts_are_kept_and_read_back(entry: SearchEntry) -> None:
    file = read_space_file(entry)
    assert file is not None
    index = load_index(file.data)
    facts = gather_facts(file, [SMALL], index)
    assert facts.num_validation == len(index.splits["val"]) and len(facts.classes) == 10
    assert (facts.max_epochs, facts.rungs, facts.digest) == (9, (1, 3), index.digest)
    assert set(facts.parameters) == {"mobilenet_v3_small"}
    assert facts.trainable["mobilenet_v3_small"][0] == 1024 * 10 + 10
    assert facts.trainable["mobilenet_v3_small"][5] == facts.parameters["mobilenet_v3_small"]
    write_facts(entry, facts)
    assert read_facts(entry) == facts


def test_what_is_missing_is_counted_once(entry: SearchEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_facts(entry).num_validation is None and read_facts(entry).rungs == (1, 3)
    first = complete_facts(entry, [SMALL])
    assert first.num_validation and set(first.parameters) == {"mobilenet_v3_small"}
    both = complete_facts(entry, [SMALL, LARGE])
    assert set(both.parameters) == {"mobilenet_v3_small", "resnet18"} and read_facts(entry) != both
    keep_facts(entry, both)  # by whoever writes to the search
    assert read_facts(entry) == both

    def counted_again(*_: object, **__: object) -> None:
        raise AssertionError("counted again")

    monkeypatch.setattr("tlsearch.model.describe_model", counted_again)
    monkeypatch.setattr("tlsearch.data.load_index", counted_again)
    assert complete_facts(entry, [LARGE, LARGE]) == both


def test_wide_heads_and_adapted_stages_have_counts_of_their_own(entry: SearchEntry) -> None:
    plain = TrialConfig(backbone="vit_b_32")
    wide, lora = replace(plain, features="last4"), replace(plain, unfreeze_depth=2, adapt="lora", lora_rank=4)
    facts = complete_facts(entry, [plain])
    write_facts(entry, facts)
    facts = complete_facts(entry, [plain, wide, lora])
    assert facts.trainable_of(plain) == 768 * 10 + 10 and facts.trainable_of(wide) == 4 * 768 * 10 + 10
    assert facts.parameters["vit_b_32 last4"] - facts.parameters["vit_b_32"] == 3 * 768 * 10
    adapted, whole = facts.trainable_of(lora), facts.trainable_of(replace(plain, unfreeze_depth=2))
    assert adapted is not None and whole is not None and 768 * 10 + 10 < adapted < 0.02 * whole
    assert facts.parameters_of(lora) == facts.parameters_of(plain)
    assert facts.trainable_of(replace(lora, lora_rank=8)) is None  # of no trial
    write_facts(entry, facts)
    assert read_facts(entry) == facts


def test_data_that_are_gone_leave_the_rest(entry: SearchEntry, caplog: pytest.LogCaptureFixture) -> None:
    gone = SPACE.replace("source: digits", "source: folder, path: /nowhere/at/all")
    (entry.path / "resolved.yaml").write_text(gone)
    with caplog.at_level(logging.WARNING, logger="tlsearch"):
        facts = complete_facts(entry, [LARGE])
    assert facts.num_validation is None and facts.max_epochs == 9 and "cannot be counted" in caplog.text
    shutil.rmtree(entry.path)
    assert read_facts(entry).max_epochs is None


def test_a_damaged_file_is_counted_anew(entry: SearchEntry) -> None:
    (entry.path / FACTS).write_text('{"format": 1, "images": ')
    assert complete_facts(entry, []).num_validation
    (entry.path / FACTS).write_text('{"format": 7}')
    assert read_facts(entry).max_epochs == 9


def test_facts_that_cannot_be_kept_are_told_not_raised(
    entry: SearchEntry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("read only")

    monkeypatch.setattr("tlsearch.app.catalog.gather_facts.write_atomically", refuse)
    with caplog.at_level(logging.WARNING, logger="tlsearch"):
        keep_facts(entry, complete_facts(entry, []))
    assert "cannot be kept" in caplog.text


def test_each_image_size_of_a_backbone_is_a_model(entry: SearchEntry) -> None:
    """A transformer has a position for each patch; of a convolutional network all sizes have the same parameters."""
    sized = SPACE.replace(", image_size: 32", "").replace("resnet18", "vit_b_32")
    sized = sized.replace("vit_b_32]}", "vit_b_32], image_size: [32, 64]}")
    (entry.path / "resolved.yaml").write_text(sized)
    configs = [TrialConfig(backbone=name, image_size=px) for name in (SMALL.backbone, "vit_b_32") for px in (32, 64)]
    facts = complete_facts(entry, configs)
    small, large, patch, patches = (facts.parameters_of(config) for config in configs)
    assert small == large and patch is not None and patches is not None and patches - patch == 3 * 768
    assert facts.parameters.keys() == {config.model for config in configs} and facts.trainable_of(configs[0])
    assert facts.parameters_of(SMALL) is None
