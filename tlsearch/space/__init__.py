"""What a search may try: domains, conditions, starting points, and the static table of backbones."""

from tlsearch.space.dimensions import PARAMETERS
from tlsearch.space.domains import Choice, Domain, Fixed, FloatRange, IntRange
from tlsearch.space.image_sizes import image_sizes_of
from tlsearch.space.libraries.backbone_checks import unused_weights
from tlsearch.space.libraries.backbones import BackboneFacts, backbone_facts
from tlsearch.space.load import build_space, load, load_resolved
from tlsearch.space.slots import Dimension, is_screened, with_backbones
from tlsearch.space.space import Space
