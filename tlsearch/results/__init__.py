"""What a search has found: the leaderboard, predictions, the served model.

Nothing heavy is imported with the room: the predictor (torch) comes with its first use.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tlsearch.core.imports import lazy_names
from tlsearch.results.leaderboard.leaderboard import LeaderboardRow, leaderboard, leaderboard_csv, results_json

if TYPE_CHECKING:
    from tlsearch.results.inference.predictor import Classifier, load_model, logits_on, predict

SERVED_CODE = Path(__file__).parent / "inference" / "mlflow_model.py"  # of every logged model

__getattr__ = lazy_names(__name__, __file__)
