"""`ImageFolderSource`: image files in a folder for each class."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from datarax.core.config import require_bools, require_names
from datarax.sources._config import SourceConfig
from datarax.sources._opaque import Opaque
from datarax.sources._source import DataSourceModule

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")


@dataclass(frozen=True, kw_only=True)
class ImageFolderConfig(SourceConfig):
    """Configuration of `ImageFolderSource`.

    Args:
      root: the folder with a folder for each class, in which images lie at any depth.
      mode: Pillow's name of what images are converted to: "RGB" (three channels), "L" (one), ...
      decode: whether "image" is an array; if not, it is the Pillow image, opened but not decoded
        nor converted, for `transforms` that crop or shrink while they decode.
      extensions: the ends of the names of image files; capital letters are taken too.
      metadata_fields: may be `("path",)`, the file's path below `root`.
      cacheable, batch_stats_fn, precomputed_stats: see `DataraxModuleConfig`.
      stochastic, stream_name, shuffle, seed: see `SourceConfig`.

    Raises:
      TypeError: for a value of the wrong type.
      ValueError: for an empty name, or a field of metadata that does not exist.

    >>> ImageFolderConfig(root="data/train", shuffle=True, seed=0).mode
    'RGB'
    """

    root: str | Path
    mode: str = "RGB"
    decode: bool = True
    extensions: tuple[str, ...] = EXTENSIONS

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.root, str | os.PathLike):
            raise TypeError(f"ImageFolderConfig.root must be a path, got {self.root!r}")
        require_names(self, "mode")
        require_bools(self, "decode")
        ends = self.extensions
        if not isinstance(ends, tuple | list) or not all(isinstance(end, str) for end in ends):
            raise TypeError(
                f"ImageFolderConfig.extensions must be a tuple such as ('.jpg',), got {ends!r}"
            )
        object.__setattr__(self, "extensions", tuple(end.lower() for end in ends))
        if set(self.metadata_fields) - {"path"}:
            raise ValueError(
                "ImageFolderConfig.metadata_fields can hold 'path', the only field that is no "
                f"array, got {self.metadata_fields}"
            )


class ImageFolderSource(DataSourceModule[ImageFolderConfig]):
    """Images from a folder for each class, decoded by Pillow when they are read.

    A record is `{"image": uint8 (height, width, channels), "label": int32}`; labels number the
    classes in the order of their names. Images of different sizes need `Pipeline(transforms=...)`
    that bring them to one size. Needs the extra `[images]`.

    Args:
      config: which folder and whether to shuffle.
      rngs: streams from which the order is derived if `config.seed` is None.
      name: its name in messages.

    Attributes:
      classes: the names of the classes, by label.

    Raises:
      ImportError: without Pillow.
      ValueError: if there is no such folder, or no image in it, or one outside of a class's folder.

    >>> ImageFolderSource(ImageFolderConfig(root="data/train"))  # doctest: +SKIP
    """

    config_class = ImageFolderConfig

    def __init__(
        self, config: ImageFolderConfig, *, rngs: nnx.Rngs | None = None, name: str | None = None
    ) -> None:
        super().__init__(config, rngs=rngs, name=name)
        _pillow()
        root = Path(config.root).expanduser()
        if not root.is_dir():
            raise ValueError(f"root of {self._label()} must be a folder, got {os.fspath(root)!r}")
        found = {
            entry.name: _images_in(entry.path, config.extensions)
            for entry in sorted(os.scandir(root), key=lambda entry: entry.name)
            if entry.is_dir()
        }
        self.classes = tuple(found)
        self._root = os.fspath(root)
        self._files = Opaque([path for paths in found.values() for path in paths])
        self._labels = Opaque(np.repeat(np.arange(len(found)), [len(p) for p in found.values()]))
        if not len(self):
            raise ValueError(
                f"{os.fspath(root)!r} must have a folder for each class with files that end with "
                f"{', '.join(config.extensions)}, but there are the folders {list(found)} without "
                "any"
            )

    def __len__(self) -> int:
        return len(self._files.value)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"index must be from 0 to {len(self) - 1}, got {index}")
        path = self._files.value[index]
        try:
            image: Any = _pillow().open(io.BytesIO(Path(path).read_bytes()))
            if self.config.decode:
                pixels = np.asarray(image.convert(self.config.mode))
                image = pixels if pixels.ndim == 3 else pixels[..., None]
        except Exception as error:
            error.add_note(f"while reading {path}")
            raise
        record = {"image": image, "label": np.int32(self._labels.value[index])}
        if self.config.metadata_fields:
            record["path"] = os.path.relpath(path, self._root)
        return record


def _images_in(folder: str, extensions: tuple[str, ...]) -> list[str]:
    """The image files below a folder, in the order of their paths."""
    paths = []
    for parent, _, names in os.walk(folder):
        paths += [os.path.join(parent, name) for name in names if name.lower().endswith(extensions)]
    return sorted(paths)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "ImageFolderSource needs Pillow; run python -m pip install 'datarax-pipeline[images]' "
            f"(the import failed with: {error})"
        ) from error
    return Image
