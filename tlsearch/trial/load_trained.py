"""A trained model out of a checkpoint's folder."""

from __future__ import annotations

from pathlib import Path

from tlsearch.config.checkpoint_meta import META_FILE, ModelMeta, read_model_file
from tlsearch.core.errors import StorageError, UserError
from tlsearch.model import StagedModel, build_model, meta_model
from tlsearch.space.backbones import backbone_facts
from tlsearch.train import read_model_state


def load_trained(directory: Path) -> tuple[StagedModel, ModelMeta]:
    """Loads the model of a checkpoint, in eval mode on the CPU, with what it says of itself.

    Neither the pretrained weights nor the training data are needed.

    Args:
        directory: Holds checkpoint.json, e.g. a trial's ``best`` folder.

    Raises:
        StorageError: No checkpoint there, one that is damaged, or one that does not fit its backbone.
    """
    directory = Path(directory)
    found = read_model_file(directory)
    meta, path = found.meta, directory / META_FILE
    facts = backbone_facts(meta.backbone)
    if facts is not None and not facts.valid_size(meta.image_size):
        raise StorageError(f"{meta.backbone} takes images of {facts.size_rule()}, not {meta.image_size} px: {path}")
    try:
        # First without memory: a file may name any backbone and any number of classes.
        empty = meta_model(meta.backbone, num_classes=len(meta.classes), image_size=meta.image_size)
        state = read_model_state(directory, found, empty)
        model = build_model(
            meta.backbone, num_classes=len(meta.classes), weights=None, image_size=meta.image_size, seed=0
        )
    except StorageError:
        raise
    except UserError as error:
        raise StorageError(f"the backbone of a checkpoint must be one that can be built: {path}: {error}") from error
    model.load_state_dict(state)
    return model.eval(), meta
