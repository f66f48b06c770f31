"""Image operations as pure functions of one record; `jax.vmap` makes them functions of a batch.

An image is `(height, width, channel)` or `(height, width)`, uint8 or floating. The drawn numbers
are arguments, traced or not, so another value compiles nothing. Coordinates are `(y, x)` in pixels,
where pixel i reaches from i to i + 1; boxes are `(y0, x0, y1, x1)`, half-open; sizes are
`(height, width)`. For uint8 the results are integers defined by integer arithmetic, the same alone,
in any batch, and under any compiler. Floats follow the same formula, unclipped and unrounded, in
float32 where the image has fewer bits, and have gradients.
"""

from datarax.operators.modality.image.functional._affine import affine as affine
from datarax.operators.modality.image.functional._affine import rotate as rotate
from datarax.operators.modality.image.functional._blends import brightness as brightness
from datarax.operators.modality.image.functional._blends import contrast as contrast
from datarax.operators.modality.image.functional._blends import saturation as saturation
from datarax.operators.modality.image.functional._blends import sharpness as sharpness
from datarax.operators.modality.image.functional._blur import gaussian_blur as gaussian_blur
from datarax.operators.modality.image.functional._geometries import Affine as Affine
from datarax.operators.modality.image.functional._geometries import Crop as Crop
from datarax.operators.modality.image.functional._geometries import Geometry as Geometry
from datarax.operators.modality.image.functional._geometries import Window as Window
from datarax.operators.modality.image.functional._histograms import auto_contrast as auto_contrast
from datarax.operators.modality.image.functional._histograms import equalize as equalize
from datarax.operators.modality.image.functional._hue import hue as hue
from datarax.operators.modality.image.functional._levels import normalize as normalize
from datarax.operators.modality.image.functional._levels import to_float as to_float
from datarax.operators.modality.image.functional._levels import to_uint8 as to_uint8
from datarax.operators.modality.image.functional._luminance import grayscale as grayscale
from datarax.operators.modality.image.functional._moves import crop as crop
from datarax.operators.modality.image.functional._moves import flip as flip
from datarax.operators.modality.image.functional._moves import pad as pad
from datarax.operators.modality.image.functional._resize import resize as resize
from datarax.operators.modality.image.functional._resize import resized_crop as resized_crop
from datarax.operators.modality.image.functional._tables import invert as invert
from datarax.operators.modality.image.functional._tables import posterize as posterize
from datarax.operators.modality.image.functional._tables import solarize as solarize
from datarax.operators.modality.image.functional._tables import solarize_add as solarize_add
from datarax.operators.modality.image.functional._transforms import Boxes as Boxes
from datarax.operators.modality.image.functional._transforms import Points as Points
from datarax.operators.modality.image.functional._transforms import (
    transform_boxes as transform_boxes,
)
from datarax.operators.modality.image.functional._transforms import (
    transform_points as transform_points,
)
