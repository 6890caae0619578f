"""The table of BN policies says what each of them is documented to do."""

from __future__ import annotations

import pytest

from tlsearch.space.bn_policies import BN_POLICIES, bn_policy


def test_the_rows_are_the_documented_policies() -> None:
    rows = {
        name: (one.recalibrates, one.moves_in_trainable, one.moves_in_frozen, one.affine_trains, one.at_depth_0)
        for name, one in BN_POLICIES.items()
    }
    assert rows == {
        "frozen": (False, False, False, False, True),
        "train": (False, True, False, True, False),
        "adapt": (True, False, False, False, True),
        "stats": (False, True, True, True, True),
    }
    assert [name for name, one in BN_POLICIES.items() if not one.cacheable] == ["stats"]
    assert [name for name, one in BN_POLICIES.items() if one.keeps_all] == ["frozen"]


def test_a_backbone_without_batch_norm_is_frozen_and_other_names_are_refused() -> None:
    assert bn_policy(None) is BN_POLICIES["frozen"]
    with pytest.raises(ValueError, match="bn_policy is one of frozen, train, adapt, stats, not 'melt'"):
        bn_policy("melt")
