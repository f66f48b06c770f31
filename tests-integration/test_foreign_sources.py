"""Data sets of other libraries as sources."""

import numpy as np
import pytest

from datarax.pipeline import Pipeline


def test_hugging_face_data_sets_are_sources():
    """Shuffled, resumed, with texts as metadata, and read together where it is faster."""
    datasets = pytest.importorskip("datasets", reason="needs Hugging Face datasets")
    data = datasets.Dataset.from_dict(
        {
            "x": [[float(number), 1.0] for number in range(10)],
            "label": list(range(10)),
            "text": [f"t{number}" for number in range(10)],
        }
    )
    options = {"batch_size": 4, "shuffle": True, "seed": 0}
    pipeline = Pipeline(source=data, metadata_fields=("text",), **options)
    iterator, resumed = iter(pipeline), iter(pipeline)
    first = next(iterator)
    assert [entry["text"] for entry in first.metadata] == [f"t{n}" for n in first["label"].tolist()]
    resumed.set_state(iterator.get_state())
    rest = [batch["label"].tolist() for batch in iterator]
    assert [batch["label"].tolist() for batch in resumed] == rest
    whole = Pipeline(source=data.with_format("numpy", columns=["x", "label"]), **options)
    assert next(iter(whole))["x"][:, 0].tolist() == first["label"].tolist()
    with pytest.raises(TypeError, match=r"data\['text'\] .* metadata_fields=\('text',\)"):
        next(iter(Pipeline(source=data, **options)))
    with pytest.raises(TypeError, match="of a dict of splits choose one"):
        Pipeline(source=datasets.DatasetDict(train=data), **options)


def test_torch_data_sets_are_sources():
    """Tuples of tensors, their parts named."""
    torch = pytest.importorskip("torch", reason="needs torch")
    data = torch.utils.data.TensorDataset(torch.arange(6.0), torch.arange(6))
    batch = next(iter(Pipeline(source=data, fields=("x", "label"), batch_size=3)))
    assert np.asarray(batch["x"]).tolist() == [0, 1, 2]
    assert batch["label"].dtype == np.int32
