"""Image operators, the bases to write others, and the distributions of their numbers."""

from datarax.operators.modality.image import functional as functional
from datarax.operators.modality.image._distributions import Choice as Choice
from datarax.operators.modality.image._distributions import Distribution as Distribution
from datarax.operators.modality.image._distributions import LogUniform as LogUniform
from datarax.operators.modality.image._distributions import Normal as Normal
from datarax.operators.modality.image._distributions import Uniform as Uniform
from datarax.operators.modality.image._geometric_operator import (
    GeometricOperator as GeometricOperator,
)
from datarax.operators.modality.image._geometric_operator import (
    GeometricOperatorConfig as GeometricOperatorConfig,
)
from datarax.operators.modality.image._image_operator import ImageOperator as ImageOperator
from datarax.operators.modality.image._image_operator import (
    ImageOperatorConfig as ImageOperatorConfig,
)
from datarax.operators.modality.image._number import Number as Number
from datarax.operators.modality.image._number import number as number
from datarax.operators.modality.image._operations import (
    Operation as Operation,
)
from datarax.operators.modality.image._operations import (
    Warp as Warp,
)
from datarax.operators.modality.image.affine_operator import (
    AffineOperator as AffineOperator,
)
from datarax.operators.modality.image.affine_operator import (
    AffineOperatorConfig as AffineOperatorConfig,
)
from datarax.operators.modality.image.auto_augment_operator import (
    AutoAugmentOperator as AutoAugmentOperator,
)
from datarax.operators.modality.image.auto_augment_operator import (
    AutoAugmentOperatorConfig as AutoAugmentOperatorConfig,
)
from datarax.operators.modality.image.auto_contrast_operator import (
    AutoContrastOperator as AutoContrastOperator,
)
from datarax.operators.modality.image.auto_contrast_operator import (
    AutoContrastOperatorConfig as AutoContrastOperatorConfig,
)
from datarax.operators.modality.image.brightness_operator import (
    BrightnessOperator as BrightnessOperator,
)
from datarax.operators.modality.image.brightness_operator import (
    BrightnessOperatorConfig as BrightnessOperatorConfig,
)
from datarax.operators.modality.image.color_jitter_operator import (
    ColorJitterOperator as ColorJitterOperator,
)
from datarax.operators.modality.image.color_jitter_operator import (
    ColorJitterOperatorConfig as ColorJitterOperatorConfig,
)
from datarax.operators.modality.image.contrast_operator import (
    ContrastOperator as ContrastOperator,
)
from datarax.operators.modality.image.contrast_operator import (
    ContrastOperatorConfig as ContrastOperatorConfig,
)
from datarax.operators.modality.image.crop_operator import (
    CropOperator as CropOperator,
)
from datarax.operators.modality.image.crop_operator import (
    CropOperatorConfig as CropOperatorConfig,
)
from datarax.operators.modality.image.dropout_operator import (
    DropoutOperator as DropoutOperator,
)
from datarax.operators.modality.image.dropout_operator import (
    DropoutOperatorConfig as DropoutOperatorConfig,
)
from datarax.operators.modality.image.equalize_operator import (
    EqualizeOperator as EqualizeOperator,
)
from datarax.operators.modality.image.equalize_operator import (
    EqualizeOperatorConfig as EqualizeOperatorConfig,
)
from datarax.operators.modality.image.flip_operator import (
    FlipOperator as FlipOperator,
)
from datarax.operators.modality.image.flip_operator import (
    FlipOperatorConfig as FlipOperatorConfig,
)
from datarax.operators.modality.image.gaussian_blur_operator import (
    GaussianBlurOperator as GaussianBlurOperator,
)
from datarax.operators.modality.image.gaussian_blur_operator import (
    GaussianBlurOperatorConfig as GaussianBlurOperatorConfig,
)
from datarax.operators.modality.image.grayscale_operator import (
    GrayscaleOperator as GrayscaleOperator,
)
from datarax.operators.modality.image.grayscale_operator import (
    GrayscaleOperatorConfig as GrayscaleOperatorConfig,
)
from datarax.operators.modality.image.hue_operator import (
    HueOperator as HueOperator,
)
from datarax.operators.modality.image.hue_operator import (
    HueOperatorConfig as HueOperatorConfig,
)
from datarax.operators.modality.image.invert_operator import (
    InvertOperator as InvertOperator,
)
from datarax.operators.modality.image.invert_operator import (
    InvertOperatorConfig as InvertOperatorConfig,
)
from datarax.operators.modality.image.iou_crop_operator import (
    IoUCropOperator as IoUCropOperator,
)
from datarax.operators.modality.image.iou_crop_operator import (
    IoUCropOperatorConfig as IoUCropOperatorConfig,
)
from datarax.operators.modality.image.noise_operator import (
    NoiseOperator as NoiseOperator,
)
from datarax.operators.modality.image.noise_operator import (
    NoiseOperatorConfig as NoiseOperatorConfig,
)
from datarax.operators.modality.image.normalize_operator import (
    NormalizeOperator as NormalizeOperator,
)
from datarax.operators.modality.image.normalize_operator import (
    NormalizeOperatorConfig as NormalizeOperatorConfig,
)
from datarax.operators.modality.image.patch_dropout_operator import (
    PatchDropoutOperator as PatchDropoutOperator,
)
from datarax.operators.modality.image.patch_dropout_operator import (
    PatchDropoutOperatorConfig as PatchDropoutOperatorConfig,
)
from datarax.operators.modality.image.posterize_operator import (
    PosterizeOperator as PosterizeOperator,
)
from datarax.operators.modality.image.posterize_operator import (
    PosterizeOperatorConfig as PosterizeOperatorConfig,
)
from datarax.operators.modality.image.rand_augment_operator import (
    RandAugmentOperator as RandAugmentOperator,
)
from datarax.operators.modality.image.rand_augment_operator import (
    RandAugmentOperatorConfig as RandAugmentOperatorConfig,
)
from datarax.operators.modality.image.resize_operator import (
    ResizeOperator as ResizeOperator,
)
from datarax.operators.modality.image.resize_operator import (
    ResizeOperatorConfig as ResizeOperatorConfig,
)
from datarax.operators.modality.image.resized_crop_operator import (
    ResizedCropOperator as ResizedCropOperator,
)
from datarax.operators.modality.image.resized_crop_operator import (
    ResizedCropOperatorConfig as ResizedCropOperatorConfig,
)
from datarax.operators.modality.image.rotation_operator import (
    RotationOperator as RotationOperator,
)
from datarax.operators.modality.image.rotation_operator import (
    RotationOperatorConfig as RotationOperatorConfig,
)
from datarax.operators.modality.image.saturation_operator import (
    SaturationOperator as SaturationOperator,
)
from datarax.operators.modality.image.saturation_operator import (
    SaturationOperatorConfig as SaturationOperatorConfig,
)
from datarax.operators.modality.image.scale_jitter_operator import (
    ScaleJitterOperator as ScaleJitterOperator,
)
from datarax.operators.modality.image.scale_jitter_operator import (
    ScaleJitterOperatorConfig as ScaleJitterOperatorConfig,
)
from datarax.operators.modality.image.sharpness_operator import (
    SharpnessOperator as SharpnessOperator,
)
from datarax.operators.modality.image.sharpness_operator import (
    SharpnessOperatorConfig as SharpnessOperatorConfig,
)
from datarax.operators.modality.image.solarize_operator import (
    SolarizeOperator as SolarizeOperator,
)
from datarax.operators.modality.image.solarize_operator import (
    SolarizeOperatorConfig as SolarizeOperatorConfig,
)
from datarax.operators.modality.image.spectrogram_mask_operator import (
    SpectrogramMaskOperator as SpectrogramMaskOperator,
)
from datarax.operators.modality.image.spectrogram_mask_operator import (
    SpectrogramMaskOperatorConfig as SpectrogramMaskOperatorConfig,
)
from datarax.operators.modality.image.trivial_augment_operator import (
    TrivialAugmentOperator as TrivialAugmentOperator,
)
from datarax.operators.modality.image.trivial_augment_operator import (
    TrivialAugmentOperatorConfig as TrivialAugmentOperatorConfig,
)
