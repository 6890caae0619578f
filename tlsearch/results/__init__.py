"""What a search has found: the leaderboard, predictions, the served model.

Nothing heavy is imported with the room: the predictor (torch) comes with its first use.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlsearch.results.leaderboard.leaderboard import LeaderboardRow, leaderboard, leaderboard_csv, results_json

if TYPE_CHECKING:
    from tlsearch.results.inference.answers import MultiLabelPrediction, Prediction, Score
    from tlsearch.results.inference.predictor import Classifier, load_model, logits_on, predict

SERVED_CODE = Path(__file__).parent / "inference" / "mlflow_model.py"  # of every logged model

__all__ = [
    "SERVED_CODE",
    "Classifier",
    "LeaderboardRow",
    "MultiLabelPrediction",
    "Prediction",
    "Score",
    "leaderboard",
    "leaderboard_csv",
    "load_model",
    "logits_on",
    "predict",
    "results_json",
]

_ANSWERS = frozenset({"MultiLabelPrediction", "Prediction", "Score"})
_PREDICTOR = frozenset({"Classifier", "load_model", "logits_on", "predict"})


def __getattr__(name: str) -> Any:
    if name in _PREDICTOR:
        from tlsearch.results.inference import predictor

        return getattr(predictor, name)
    if name in _ANSWERS:
        from tlsearch.results.inference import answers

        return getattr(answers, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
