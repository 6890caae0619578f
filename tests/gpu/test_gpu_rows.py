"""Rows on a CUDA device, from a copy that stays there and through the side stream."""

from __future__ import annotations

import pytest
import torch

from tlsearch.train.loop import device_rows
from tlsearch.train.loop.device_rows import Ahead, release_copies, rows_on_device

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def epoch(rows: torch.Tensor, ahead: Ahead) -> torch.Tensor:
    batches = list(torch.split(torch.randperm(len(rows)), 16))
    ahead.expect(batches)
    parts = []
    for index in batches:
        parts.append(rows_on_device(rows, index, torch.device("cuda", 0), ahead).clone())
    order = torch.argsort(torch.cat(batches))
    return torch.cat(parts).cpu()[order]


@pytest.mark.parametrize("fits", [True, False])
def test_all_rows_arrive_whether_or_not_they_stay(fits, monkeypatch):
    if not fits:
        monkeypatch.setattr(device_rows, "room_for_copies", lambda device, held: 0)
    release_copies()
    rows = torch.randint(0, 256, (500, 32, 32, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    for _ in range(3):
        assert torch.equal(epoch(rows, Ahead()), rows)
    assert release_copies() is fits
    assert torch.equal(epoch(rows, Ahead()), rows)
