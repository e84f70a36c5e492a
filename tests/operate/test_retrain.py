"""Whole retrainings: new data to a new champion from the old one's weights, through kills at every point; and from a
deployment on real servers."""

from pathlib import Path

import pytest

from tests.operate.landing import land, triggers
from tests.operate.up_process import Up
from tests.tiny_runs import Cli, write_tiny_recipe

pytestmark = pytest.mark.slow

WARM = """\
extends: {recipe}
name: warm
model: tiny
retrain:
  head: null
  full: {{inputs: {{model: "registry:@champion/full"}}, with: {{num_train_epochs: 1}}}}
"""


def champion(cli: Cli) -> dict:
    (model,) = cli.json("models")
    return model["aliases"]


@pytest.fixture
def warm(cli_after_run: Cli, home_until) -> Path:
    """A recipe on that of the home's champion, whose retraining starts from the champion's large model."""
    path = cli_after_run.cwd / "warm.yaml"
    path.write_text(WARM.format(recipe=home_until("release").parent / "tiny.yaml"))
    return path


def test_killed_at_every_point_one_retraining_comes_of_it(cli_after_run, warm):
    cli, arguments = cli_after_run, ("retrain", "tiny", "--local", "--recipe", str(warm))
    land(cli.home, 400, 460)
    for point in ("data.after-listing", "retrain.trigger", "retrain.recipe", "train.checkpoint", "retrain.ran"):
        assert cli(*arguments, fault=point, code=None).returncode != 0, point
    outcome = cli.json(*arguments)
    (trigger,) = triggers(cli.home)
    assert (outcome["id"], outcome["state"]) == (trigger["id"], "released")
    assert champion(cli) == {"champion": 2, "previous": 1}
    steps = cli.json("plan", str(cli.home / "retrain" / "tiny" / "recipes" / f"{trigger['id']}.yaml"))["steps"]
    assert "head" not in [step["name"] for step in steps] and {step["state"] for step in steps} == {"hit"}

    shown = cli.json("data", "show", "tiny")
    assert (shown["version"], shown["seen"], shown["epochs"][0]["rows"]) == (1, 1, 60)
    assert shown["epochs"][0]["rejected"] == {"no_text": 1, "unknown_label": 1}
    assert list((cli.home / "data" / "tiny" / "received").iterdir())
    assert outcome["quality"]["champion"] is not None

    again = cli.json(*arguments)
    assert again["state"] == "nothing-new"
    assert champion(cli) == {"champion": 2, "previous": 1}

    # The next one starts from the version that this one made, without being told the recipe again.
    land(cli.home, 460, 500)
    assert cli.json("retrain", "tiny", "--local", "--min-rows", "41")["state"] == "too-few"
    second = cli.json("retrain", "tiny", "--local", code=None)
    assert second["state"] in ("released", "refused"), second
    written = (cli.home / "retrain" / "tiny" / "recipes" / f"{second['id']}.yaml").read_text()
    assert "registry:tiny/2/full" in written and "registry:tiny/2/data" in written
    assert sum(entry["rows"] for entry in cli.json("data", "show", "tiny")["epochs"]) == 100


def test_a_deployed_retraining_says_what_it_did(up: Up, tiny_base: Path, tmp_path: Path):
    up.cli("run", str(write_tiny_recipe(tmp_path, tiny_base)))
    idle = up.finished(up.deploy_run("retrain/retrain", {"name": "tiny", "reason": "schedule"}))
    assert (idle["state_type"], idle["state_name"]) == ("COMPLETED", "NothingNew"), up.log()
    land(up.home, 400, 460)
    ran = up.finished(up.deploy_run("retrain/retrain", {"name": "tiny", "min_rows": 50, "cooldown_hours": 0}))
    assert (ran["state_type"], ran["state_name"]) in (("COMPLETED", "Released"), ("COMPLETED", "Refused")), up.log()
    last = triggers(up.home)[-1]
    assert last["state"] in ("released", "refused") and last["flow_run"] == ran["id"]
    assert {"data", "full", "release"} <= set(up.task_states(ran["id"]))
    wrong = up.finished(up.deploy_run("retrain/retrain", {"name": "nobody"}))
    assert wrong["state_type"] == "FAILED" and 'no model "nobody"' in wrong["state"]["message"]
