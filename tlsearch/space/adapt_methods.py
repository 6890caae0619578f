"""The values of ``adapt``: what trains of the trainable stages. A new one is a row here, and what ``model`` does by it.

Which parameters a method trains, and how, is in ``tlsearch.model.adapters``, by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

from tlsearch.core.types import Scalar
from tlsearch.space.domains import Domain, Listed, listed
from tlsearch.space.libraries.backbones import BackboneFacts, backbone_facts

# By their family, the module of timm's models: blocks of attention and linear layers in every stage.
_TRANSFORMERS = frozenset(
    "vit swin swin_v2 beit deit eva swin_transformer swin_transformer_v2 vision_transformer vision_transformer_hybrid"
    " vitamin".split()
)
_WITHOUT_NORM = frozenset("alexnet nfnet squeezenet vgg".split())  # but for those that have batch norm


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a method needs of a backbone.

    Attributes:
        words: For messages and the documentation: what the backbone is to be or to have.
        met: Whether a backbone has it.
    """

    words: str
    met: Callable[[BackboneFacts], bool]


_ANY = Need(words="any backbone", met=lambda facts: True)
# Without batch norm: a convolution that has taken over the work of one keeps what it made of weights that stood still.
_TRANSFORMER = Need(
    words="a transformer without batch norm as the backbone",
    met=lambda facts: facts.family in _TRANSFORMERS and not facts.has_batch_norm,
)
_NORM = Need(
    words="a backbone with normalisation layers",
    met=lambda facts: facts.has_batch_norm or facts.family not in _WITHOUT_NORM,
)


@dataclass(frozen=True, kw_only=True)
class AdaptMethod:
    """What trains of the trainable stages under one method.

    Attributes:
        meaning: A phrase for the documentation that follows the name.
        need: What it needs of a backbone.
        has_rank: Whether ``lora_rank`` has an effect.
    """

    name: str
    meaning: str
    need: Need = _ANY
    has_rank: bool = False


PLAIN = AdaptMethod(name="none", meaning="trains all of them")

ADAPT_METHODS: Mapping[str, AdaptMethod] = {
    one.name: one
    for one in (
        PLAIN,
        AdaptMethod(
            name="lora",
            meaning="adds a product of two narrow matrices to the weight of each linear layer",
            need=_TRANSFORMER,
            has_rank=True,
        ),
        AdaptMethod(
            name="ssf",
            meaning="scales and shifts what each linear, convolutional and normalisation layer puts out",
            need=_TRANSFORMER,
        ),
        AdaptMethod(name="bitfit", meaning="trains the biases alone"),
        AdaptMethod(name="norm", meaning="trains scale and shift of normalisation layers alone", need=_NORM),
    )
}


@cache
def fitting_methods(domain: Domain, backbone: Scalar) -> Domain | None:
    """The methods of a domain that a backbone can take; ``none`` where there are none.

    Returns:
        None where it can take all of them.
    """
    assert isinstance(domain, Listed), "methods are names"
    facts = backbone_facts(str(backbone))
    left = tuple(one for one in domain.values if facts is None or ADAPT_METHODS[str(one)].need.met(facts))
    return None if left == domain.values else listed(left or (PLAIN.name,))


def kind_of_backbone(facts: BackboneFacts | None) -> tuple[bool, ...]:
    """What methods ask of a backbone: two of one kind take the same ones."""
    return tuple(facts is None or one.need.met(facts) for one in ADAPT_METHODS.values())
