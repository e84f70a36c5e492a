"""Runs from the UI, in a real Chromium: the form, the run's page, its artifacts, and what is refused."""

import re
import shutil
import time

import pytest

from flows.prefect_api import ask
from tests.operate.browser import open_page, screenshot

pytestmark = pytest.mark.slow

SECONDS = 300


@pytest.fixture
def form(up, shared_recipe, tmp_path):
    """A page with the form of the deployment `train`, whose choices hold a recipe that was added while `up` runs."""
    (up.home / "recipes").mkdir(exist_ok=True)
    shutil.copy(shared_recipe, up.home / "recipes" / "tiny.yaml")
    deployment = until(lambda: with_choice(up, "tiny"))
    with open_page(1250) as page:
        page.goto(f"{up.prefect}/deployments/deployment/{deployment}")
        page.get_by_role("button", name="Run", exact=True).click()
        page.get_by_text("Custom run").click()
        page.get_by_text("What to train: a recipe").wait_for()
        choose(page, "tiny")
        yield page


def until(find, seconds=SECONDS):
    deadline = time.monotonic() + seconds
    while True:
        found = find()
        if found:
            return found
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.3)


def with_choice(up, name):
    found = ask(up.api, "deployments/name/train/train", method="GET")
    return found["id"] if name in found["parameter_openapi_schema"]["properties"]["recipe"]["enum"] else None


def choose(page, recipe):
    """By the arrow: a click on the text itself opens the list and closes it again (Prefect 3.8.8)."""
    title = page.get_by_text("Recipe (Optional)", exact=True)
    title.locator("xpath=following::*[contains(@class, 'p-select-button__icon')][1]").click()
    page.get_by_role("option", name=recipe, exact=True).click()


def fill(page, title, value):
    """The field below a parameter's title."""
    label = page.get_by_text(f"{title} (Optional)", exact=True)
    label.locator("xpath=following::*[self::input or self::textarea][1]").fill(value)


def add_override(page, text):
    page.get_by_role("button", name="Add item").click()
    label = page.get_by_text("Overrides (Optional)", exact=True)
    label.locator("xpath=following::textarea[1]").fill(text)


def submit(page):
    page.get_by_role("button", name="Submit").click()


def newest_run(up, known):
    runs = ask(up.api, "flow_runs/filter", {"sort": "EXPECTED_START_TIME_DESC", "flows": {"name": {"any_": ["train"]}}})
    return next((run for run in runs if run["id"] not in known), None)


def runs(up):
    return {run["id"] for run in ask(up.api, "flow_runs/filter", {"flows": {"name": {"any_": ["train"]}}})}


def artifacts(up, run):
    return ask(up.api, "artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})


def watch(up, run):
    """What the progress artifact said on the way, until the run is over."""
    said = []

    def over():
        said.extend(one["description"] for one in artifacts(up, run) if one["key"] == "progress")
        return ask(up.api, f"flow_runs/{run}", method="GET")["state_type"] in ("COMPLETED", "FAILED", "CRASHED")

    until(over)
    return list(dict.fromkeys(said))


def test_a_run_from_the_form_shows_its_progress_results_verdict_and_links(up, form, tmp_path):
    known = runs(up)
    fill(form, "Seed", "7")
    fill(form, "Rows", "200")
    add_override(form, "full.num_train_epochs=3")
    screenshot(form, "form", tmp_path)
    submit(form)
    run = until(lambda: newest_run(up, known))["id"]
    form.goto(f"{up.prefect}/runs/flow-run/{run}")
    said = watch(up, run)
    found = ask(up.api, f"flow_runs/{run}", method="GET")
    assert found["state_name"] == "Completed", (found["state"], up.log())
    assert found["name"] == "tiny, seed 7, rows 200, full.num_train_epochs=3"
    assert any(re.match(r"tiny: step \d of 8: ", one) for one in said), said
    form.set_viewport_size({"width": 1280, "height": 1050})
    form.reload()  # the graph fits itself into its place once, when it is drawn
    form.get_by_text("Completed", exact=True).first.wait_for()
    form.wait_for_timeout(4000)
    screenshot(form, "run", tmp_path)
    form.get_by_text("Artifacts", exact=True).last.click()
    for key in ("progress", "results", "steps", "verdict"):
        form.get_by_text(key, exact=True).first.wait_for()
    screenshot(form, "artifacts", tmp_path)
    look_at_the_verdict(up, form, run, tmp_path)


def look_at_the_verdict(up, page, run, tmp_path):
    by_key = {one["key"]: one for one in artifacts(up, run)}
    page.goto(f"{up.prefect}/artifacts/artifact/{by_key['results']['id']}")
    for text in ("f1_macro", "texts/s", "candidate", "baseline"):
        page.get_by_text(text, exact=True).first.wait_for()
    page.goto(f"{up.prefect}/artifacts/artifact/{by_key['verdict']['id']}")
    page.get_by_role("heading", name="tiny version").wait_for()
    page.get_by_role("cell", name="max_loss", exact=True).wait_for()
    screenshot(page, "verdict", tmp_path)
    links = {link.inner_text(): link.get_attribute("href") for link in page.get_by_role("link").all()}
    model = next(address for title, address in links.items() if title == "Model")
    record = next(address for title, address in links.items() if title == "Run in MLflow")
    page.goto(model)
    page.get_by_text("champion").first.wait_for()
    page.goto(record)
    page.get_by_text("Parameters").first.wait_for()


@pytest.mark.parametrize(
    ("title", "value", "says"),
    [
        ("Seed", "-7", "-7 is less than the minimum of -1"),
        ("Rows", "-2", "-2 is less than the minimum of -1"),
        ("Overrides", "full", "'full' does not match '^[^=]+='"),
    ],
)
def test_a_wrong_value_is_refused_in_the_form(up, form, title, value, says):
    known = runs(up)
    add_override(form, value) if title == "Overrides" else fill(form, title, value)
    submit(form)
    form.get_by_text(says).first.wait_for()
    assert runs(up) == known


@pytest.mark.parametrize(
    ("title", "value", "says"),
    [
        ("Label", "stars", 'has no column "stars" (setting label). allowed: label, text'),
        ("Source", "rows.csv", 'the source "rows.csv" is a relative path. Write the whole path'),
        ("Overrides", "ful.layers=2", 'no step "ful". did you mean "full"?'),
    ],
)
def test_what_the_form_cannot_know_is_one_line_on_the_runs_page(up, form, title, value, says):
    known = runs(up)
    add_override(form, value) if title == "Overrides" else fill(form, title, value)
    submit(form)
    run = until(lambda: newest_run(up, known))["id"]
    watch(up, run)
    found = ask(up.api, f"flow_runs/{run}", method="GET")
    assert found["state_name"] == "Failed" and says in found["state"]["message"], found["state"]
    form.goto(f"{up.prefect}/runs/flow-run/{run}")
    form.get_by_text(says).first.wait_for()
    lines = ask(up.api, "logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}})
    assert not [line for line in lines if "Traceback" in line["message"] or "\n" in line["message"]]
    assert [says in line["message"] for line in lines if line["level"] >= 40] == [True]
