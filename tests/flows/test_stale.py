"""What a run says of stale work."""

from types import SimpleNamespace

import pytest

from flows import stale

STEPS = [SimpleNamespace(name=name, hit=name == "data") for name in ("data", "head", "student")]


@pytest.mark.parametrize(("reasons", "lines"), [([], 0), (["code stillhouse.models changed: head"], 2)])
def test_the_reason_and_every_step_that_follows_are_named(monkeypatch, reasons, lines):
    monkeypatch.setattr(stale, "causes", lambda plan, store: reasons)
    said = stale.trained_again(SimpleNamespace(steps=STEPS), None)  # type: ignore[arg-type]
    assert len(said) == lines
    if lines:
        assert said == [*reasons, "these steps run again: head, student"]
