"""A trained teacher for all tests of distillation."""

import pytest

from stillhouse.train.stage import Stage
from tests.stillhouse.train.tiny_training import make_base, make_data, make_job


@pytest.fixture(scope="session")
def taught(tmp_path_factory):
    """Data, a trained four-layer teacher, and its base."""
    root = tmp_path_factory.mktemp("taught")
    base, data = make_base(root / "base", layers=4), make_data(root / "data")
    job = make_job(root, "teacher", data, base)
    settings = {
        "learning_rate": 3e-3,
        "num_train_epochs": 6,
        "per_device_train_batch_size": 8,
        "train_embeddings": True,
    }
    assert Stage.model_validate({"base": "tiny", **settings}).run(job)["f1_macro"] > 0.9
    return data, job.out, base
