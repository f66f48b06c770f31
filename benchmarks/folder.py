"""A folder of JPEG files through random crops, RandAugment and MixUp, with training beside it.

Each contender trains one epoch of a small network in its own library and tells which share of the
time it waited for batches, and how long it waited for the first one, when all is compiled. A
second case takes the first batch of larger images. A third takes 10^5 small batches and tells by
how much the memory of the process has grown.
"""

from __future__ import annotations

import functools
import itertools
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from harness import Call, Case, Figures, file_of, main

FILES, CLASSES, BATCH, SIDE = 256, 8, 64, 96
SIZE, LARGE = (160, 120), (500, 375)
ALPHA = 0.4
BATCHES = 100_000


@functools.cache
def folder(size: tuple[int, int] = SIZE) -> Path:
    """Smooth coloured noise in folders of classes; made once for all interpreters."""
    from PIL import Image

    root = Path(tempfile.gettempdir()) / f"jpeg-{FILES}-{size[0]}x{size[1]}"
    if not root.exists():
        made = Path(tempfile.mkdtemp())
        for number in range(FILES):
            place = made / f"{number % CLASSES}"
            place.mkdir(exist_ok=True)
            coarse = np.random.default_rng(number).integers(0, 256, (12, 16, 3), np.uint8)
            image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
            image.save(place / f"{number:04}.jpg", quality=90)
        made.replace(root)
    return root


def files() -> list[tuple[str, int]]:
    return [(str(path), int(path.parent.name)) for path in sorted(folder().rglob("*.jpg"))]


def crop(image: Any, rng: np.random.Generator) -> np.ndarray:
    """A random tenth to whole of a Pillow image, in the size of batches, perhaps mirrored."""
    area = image.width * image.height * rng.uniform(0.1, 1)
    ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    width = min(int(np.sqrt(area * ratio)) or 1, image.width)
    height = min(int(np.sqrt(area / ratio)) or 1, image.height)
    left, top = rng.integers(image.width - width + 1), rng.integers(image.height - height + 1)
    image = image.convert("RGB").resize((SIDE, SIDE), box=(left, top, left + width, top + height))
    return np.asarray(image)[:, :: rng.choice([-1, 1])]


def cropped(record: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    return {**record, "image": np.ascontiguousarray(crop(record["image"], rng))}


def stages() -> list[Any]:
    from flax import nnx

    from datarax.operators.batch_mix_operator import BatchMixOperator, BatchMixOperatorConfig
    from datarax.operators.modality.image import RandAugmentOperator, RandAugmentOperatorConfig

    config = BatchMixOperatorConfig(mode="mixup", alpha=ALPHA, num_classes=CLASSES)
    return [
        RandAugmentOperator(RandAugmentOperatorConfig(), rngs=nnx.Rngs(0)),
        BatchMixOperator(config, rngs=nnx.Rngs(0)),
    ]


def jax_step() -> Callable[[Any, Any], None]:
    """Trains a convolution, a hidden layer and a classifier; returns when it is done."""
    import jax
    import jax.numpy as jnp

    keys = jax.random.split(jax.random.key(0), 3)
    shapes = [(64, 8 * 8 * 3), (256, 64 * 144), (CLASSES, 256)]
    weights = [jax.random.normal(k, s) / s[1] ** 0.5 for k, s in zip(keys, shapes, strict=True)]

    def loss(weights, image, label):
        x = image.astype(jnp.float32) / 255
        x = x.reshape(-1, 12, 8, 12, 8, 3).swapaxes(2, 3).reshape(-1, 144, 192)
        x = jax.nn.relu(x @ weights[0].T).reshape(-1, 144 * 64)
        logits = jax.nn.relu(x @ weights[1].T) @ weights[2].T
        return -(label * jax.nn.log_softmax(logits)).sum(axis=1).mean()

    @functools.partial(jax.jit, donate_argnums=0)
    def update(weights, image, label):
        slopes = jax.grad(loss)(weights, image, label)
        return [w - 0.01 * s for w, s in zip(weights, slopes, strict=True)]

    def step(image, label):
        nonlocal weights
        weights = jax.block_until_ready(update(weights, image, label))

    return step


def torch_step() -> Callable[[Any, Any], None]:
    """The same network in torch."""
    import torch

    class Patches(torch.nn.Module):
        def forward(self, x):
            x = x.float().div(255).reshape(-1, 3, 12, 8, 12, 8)
            return x.permute(0, 2, 4, 1, 3, 5).reshape(-1, 144, 192)

    network = torch.nn.Sequential(
        Patches(),
        torch.nn.Linear(192, 64),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(144 * 64, 256),
        torch.nn.ReLU(),
        torch.nn.Linear(256, CLASSES),
    )
    optimizer = torch.optim.SGD(network.parameters(), 0.01)

    def step(image, label):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(image), label).backward()
        optimizer.step()

    return step


def trained(batches: Iterable[Any], step: Callable[[Any, Any], None]) -> Figures:
    """Trains on all batches, and says how much of the time went into waiting."""
    start = asked = perf_counter()
    waits = []
    for image, label in batches:
        waits.append(perf_counter() - asked)
        step(image, label)
        asked = perf_counter()
    waits.append(perf_counter() - asked)
    total = perf_counter() - start
    return Figures(
        waiting_share=sum(waits) / total,
        waiting_share_after_first=sum(waits[1:]) / (total - waits[0]),
        first_batch_ms=1e3 * waits[0],
    )


def ours(**options: Any) -> Call:
    from datarax.pipeline import Pipeline
    from datarax.sources import ImageFolderConfig, ImageFolderSource

    config = ImageFolderConfig(root=folder(), decode=False, shuffle=True, seed=0)
    pipeline = Pipeline(
        source=ImageFolderSource(config),
        transforms=[cropped],
        stages=stages(),
        batch_size=BATCH,
        remainder="drop",
        **options,
    )
    step = jax_step()
    return lambda: trained(((batch["image"], batch["label"]) for batch in pipeline), step)


def load(place: tuple[str, int]) -> dict[str, Any]:
    from PIL import Image

    with Image.open(place[0]) as image:
        image.load()
    return {"image": image, "label": np.int32(place[1])}


def grains(workers: int, threads: int) -> Call:
    import grain
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    operators, step = stages(), jax_step()
    epochs = iter(range(10**6))

    def batches():
        dataset = grain.MapDataset.source(files()).seed(next(epochs)).shuffle()
        dataset = dataset.map(load).random_map(cropped).batch(BATCH, drop_remainder=True)
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * max(threads, 1))
        read = dataset.to_iter_dataset(options)
        if workers:
            options = grain.multiprocessing.MultiprocessingOptions(num_workers=workers)
            read = read.mp_prefetch(options)
        for batch in read:
            for operator in operators:
                batch = operator(batch)
            yield batch["image"], batch["label"]

    return lambda: trained(batches(), step)


class TorchFiles:
    """The data set of a torch DataLoader."""

    def __init__(self) -> None:
        self.places = files()
        policies = file_of("timm", "data", "auto_augment.py")
        self.policy = policies.rand_augment_transform("rand-m9-n2-inc1", {})

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Any:
        import torch
        from PIL import Image

        record = load(self.places[index])
        image = crop(record["image"], np.random.default_rng())
        image = self.policy(Image.fromarray(np.ascontiguousarray(image)))
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return pixels, int(record["label"])


def torchs(workers: int) -> Call:
    import torch

    module = file_of("timm", "data", "mixup.py")
    mix = module.Mixup(mixup_alpha=ALPHA, cutmix_alpha=0.0, num_classes=CLASSES, label_smoothing=0)
    loader = torch.utils.data.DataLoader(
        TorchFiles(),
        batch_size=BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=bool(workers),
    )
    step = torch_step()
    return lambda: trained((mix(image.float(), label) for image, label in loader), step)


def tf_data(threads: int) -> Call:
    """Without RandAugment, for which TensorFlow has no operations."""
    import tensorflow as tf

    paths, labels = zip(*files(), strict=True)

    def cropped(path: Any, label: Any) -> tuple[Any, Any]:
        image = tf.io.decode_jpeg(tf.io.read_file(path), 3)
        start, size, _ = tf.image.sample_distorted_bounding_box(
            tf.shape(image),
            tf.zeros((0, 0, 4)),
            area_range=(0.1, 1),
            use_image_if_no_bounding_boxes=True,
        )
        image = tf.image.resize(tf.slice(image, start, size), (SIDE, SIDE))
        return tf.image.random_flip_left_right(image), tf.one_hot(label, CLASSES)

    def mixed(image: Any, label: Any) -> tuple[Any, Any]:
        one, other = tf.unstack(tf.random.gamma((2,), ALPHA))
        lam = one / (one + other)
        return lam * image + (1 - lam) * image[::-1], lam * label + (1 - lam) * label[::-1]

    dataset = tf.data.Dataset.from_tensor_slices((list(paths), list(labels))).shuffle(FILES)
    dataset = dataset.map(cropped, num_parallel_calls=threads).batch(BATCH, drop_remainder=True)
    dataset, step = dataset.map(mixed).prefetch(2), jax_step()
    return lambda: trained(dataset.as_numpy_iterator(), step)


def shrunk(record: dict[str, Any]) -> dict[str, Any]:
    """The whole image in the size of networks for ImageNet."""
    return {**record, "image": np.asarray(record["image"].convert("RGB").resize((224, 224)))}


def first_batch(threads: int) -> Call:
    from datarax.pipeline import Pipeline
    from datarax.sources import ImageFolderConfig, ImageFolderSource

    source = ImageFolderSource(ImageFolderConfig(root=folder(LARGE), decode=False))
    # What is read ahead would be waited for when the iterator is closed.
    options: Any = {"batch_size": BATCH, "num_threads": threads, "prefetch": 0}
    pipeline = Pipeline(source=source, transforms=[shrunk], **options)

    def taken() -> None:
        with iter(pipeline) as iterator:
            next(iterator)["image"].block_until_ready()

    return taken


def first_batch_by_pillow() -> Call:
    paths = [str(path) for path in sorted(folder(LARGE).rglob("*.jpg"))[:BATCH]]
    return lambda: np.stack([shrunk(load((path, 0)))["image"] for path in paths])


class Numbers:
    """A small record for each number, without end."""

    def __len__(self) -> int:
        return 2**31

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"x": np.full(8, index, np.float32)}


def resident() -> float:
    """MiB of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def many_batches(**options: Any) -> Call:
    from datarax.pipeline import Pipeline

    if not Path("/proc/self/statm").exists():
        raise ImportError("this system does not tell the memory of a process")
    iterator = iter(Pipeline(source=Numbers(), batch_size=2, shuffle=True, seed=0, **options))

    def taken() -> Figures:
        # What is made once and kept, such as pools of memory, is there after the first ones.
        for batch in itertools.islice(iterator, BATCHES // 10):
            batch["x"].block_until_ready()
        before = resident()
        for batch in itertools.islice(iterator, BATCHES):
            batch["x"].block_until_ready()
        return Figures(grown_mib=resident() - before)

    return taken


CASES = [
    Case(
        f"epoch of {FILES} JPEG files with training, batch {BATCH}",
        {
            "datarax, in its thread": lambda: ours(num_threads=0),
            "datarax, 2 threads": lambda: ours(num_threads=2),
            "datarax, 2 workers": lambda: ours(num_workers=2),
            "grain, 2 threads": lambda: grains(0, 2),
            "grain, 2 workers": lambda: grains(2, 1),
            "tf.data, 2 threads, no RandAugment": lambda: tf_data(2),
            "torch DataLoader, no workers": lambda: torchs(0),
            "torch DataLoader, 2 workers": lambda: torchs(2),
        },
        reference="datarax, 2 threads",
        calls=8,
        warm_up=1,
    ),
    Case(
        f"first batch of {BATCH} JPEG files of {LARGE[0]} x {LARGE[1]}, resized to 224 x 224",
        {
            "Pillow in a loop": first_batch_by_pillow,
            "datarax, in its thread": lambda: first_batch(0),
            "datarax, 2 threads": lambda: first_batch(2),
        },
        reference="Pillow in a loop",
        calls=40,
        warm_up=2,
    ),
    Case(
        f"memory over {BATCHES:,} batches of 2",
        {
            "datarax, no thread": lambda: many_batches(prefetch=0),
            "datarax, 2 threads": lambda: many_batches(num_threads=2),
        },
        reference="datarax, no thread",
        calls=1,
        warm_up=0,
    ),
]

if __name__ == "__main__":
    main(CASES)
