"""Image operations as pure functions of one record; `jax.vmap` makes them functions of a batch.

An image is `(height, width, channel)` or `(height, width)`, uint8 or floating. The drawn numbers
are arguments, traced or not, so another value compiles nothing. Coordinates are `(y, x)` in pixels,
where pixel i reaches from i to i + 1; boxes are `(y0, x0, y1, x1)`, half-open; sizes are
`(height, width)`. For uint8 the results are integers defined by integer arithmetic, the same alone,
in any batch, and under any compiler. Floats follow the same formula, unclipped and unrounded, in
float32 where the image has fewer bits, and have gradients.
"""

# Geometry.
from datarax.operators.modality.image.functional._moves import crop as crop
from datarax.operators.modality.image.functional._moves import flip as flip
from datarax.operators.modality.image.functional._moves import pad as pad

# Colour.
