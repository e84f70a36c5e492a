"""What people do wrong: one clear line that names the thing and the fix, exit 2, no traceback."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

GOOD = "".join(f"fine words number {i},yes\nother words number {i},no\n" for i in range(60))

DATA = {
    "missing file": (None, "there is no data"),
    "missing column": ("txt,label\n" + GOOD, 'did you mean "txt"'),
    "empty file": ("", "empty"),
    "header only": ("text,label\n", "no rows"),
    "one class only": ("text,label\n" + GOOD.replace(",no", ",yes"), "class"),
    "all duplicates": ("text,label\n" + "same text,yes\nsame text,yes\n" * 50, "distinct row"),
    "labels missing": ("text,label\n" + GOOD.replace(",no", ",").replace(",yes", ","), "has a label"),
    "binary noise": (bytes(range(256)) * 50, "holds a zero byte"),
}

RECIPES = {
    "unknown step": ("x: {uses: export.onnx, inputs: {model: haed}}", 'did you mean "head"'),
    "cycle": (
        "x: {uses: export.onnx, inputs: {model: y}}\n  y: {uses: export.onnx, inputs: {model: x}}", "circle",
    ),
    "wrong kind": ("x: {uses: export.onnx, inputs: {model: data}}", "takes model.torch"),
    "misspelt setting": ("x: {uses: export.onnx, inputs: {model: head}, with: {opst: 1}}", "unknown key"),
    "wrong type": (
        "x: {uses: train.stage, inputs: {data: data, model: head}, with: {train: all, learning_rate: fast}}",
        "learning_rate",
    ),
    "python tag": ("x: !!python/object/apply:os.system [id]", "tag"),
    "unknown base": (
        "x: {uses: train.stage, inputs: {data: data}, with: {base: bert-bse, train: all}}", "bert-bse",
    ),
    "a base with code": (
        "x: {uses: train.stage, inputs: {data: data}, with: {base: with-code, train: all}}", "with-code",
    ),
    "a base with pickles only": (
        "x: {uses: train.stage, inputs: {data: data}, with: {base: pickles, train: all}}", "pickles",
    ),
    "a renamed pickle": (
        "x: {uses: train.stage, inputs: {data: data}, with: {base: renamed, train: all}}", "renamed",
    ),
}  # fmt: skip


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def one_line(done, says: str) -> None:
    message = done.stderr.partition("error: ")[2]
    assert says in message, done.stderr
    assert "Traceback" not in done.stderr and len(message.strip().splitlines()) <= 2, done.stderr


@pytest.mark.parametrize("name", DATA)
def test_data(name, cli, tmp_path):
    content, says = DATA[name]
    path = tmp_path / "rows.csv"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    overrides = ("--set", f"data.source={path}", "--set", "data.label=label", "--until", "data")
    one_line(cli("run", "opinions", "--local", *overrides, code=2), says)


@pytest.fixture
def recipe_directory(tmp_path, tiny_base):
    (tmp_path / "rows.csv").write_text("text,label\n" + GOOD)
    weights = tiny_base / "model.safetensors"
    for name in ("with-code", "pickles", "renamed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
    (tmp_path / "with-code" / "model.safetensors").write_bytes(weights.read_bytes())
    (tmp_path / "with-code" / "modeling.py").write_text("raise SystemExit")
    bomb = pickle.dumps(Bomb(tmp_path / "exploded"))
    (tmp_path / "pickles" / "pytorch_model.bin").write_bytes(bomb)
    (tmp_path / "renamed" / "model.safetensors").write_bytes(bomb)
    return tmp_path


@pytest.mark.parametrize("name", RECIPES)
def test_recipes(name, cli, recipe_directory, tiny_base):
    extra, says = RECIPES[name]
    path = recipe_directory / "mine.yaml"
    path.write_text(f"""\
steps:
  data: {{uses: prepare.text, with: {{source: rows.csv}}}}
  head: {{uses: train.stage, inputs: {{data: data}}, with: {{base: {tiny_base}, train: head}}}}
  {extra}
""")
    one_line(cli("run", str(path), "--local", code=2), says)
    assert not (recipe_directory / "exploded").exists()
    assert not (cli.home / "store" / "artifacts").exists(), "something ran"


def test_a_home_that_cannot_be_written(cli, tmp_path):
    (tmp_path / "file").write_text("")
    cli.home = tmp_path / "file" / "home"
    one_line(cli("run", "opinions", "--local", code=2), "cannot write to the home directory")


@pytest.mark.parametrize("name", ["a?b", "50%41", "one#two", "two\nlines"])
def test_a_home_that_no_database_address_can_name(name, cli, tmp_path):
    cli.home = tmp_path / name
    one_line(cli("models", code=2), "the path of the home directory holds")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "opinion"), 'did you mean "opinions"'),
        (("run",), "RECIPE"),
        (("runn", "opinions"), "runn"),
        (("run", "opinions", "--untl", "teacher"), "--untl"),
        (("run", "opinions", "--until", "teachr"), 'did you mean "teacher"'),
        (("run", "opinions", "--rebuild", "teachr"), 'did you mean "teacher"'),
        (("methods", "train.stag"), 'did you mean "train.stage"'),
        (("predict", "no-such-model", "a text"), "no-such-model"),
        (("predict", "no-such-model", "missing.csv"), ""),
        (("predict", "{directory}", "./missing"), "no file ./missing"),
        (("predict", "{directory}", "notes.txt"), "no file notes.txt"),
        (("promote", "no-such-model", "1"), "no-such-model"),
        (("rollback", "no-such-model"), "no-such-model"),
        (("rollback", "opinions/1"), "names one version"),
        (("rollback", "opinions@previous"), "names one version"),
        (("plan", "opinions", "--set", "head.resources.retries=many"), "retries"),
        (("plan", "opinions", "--set", "data.source=~no-such-user/x"), "is no path"),
        (("plan", "opinions", "--set", "data.source=" + "x" * 5000), "name too long"),
        (("export", "no-such-model", "somewhere"), "no-such-model"),
        (("store", "show", "zzz"), "no artifact"),
        (("new", "missing.csv"), "missing.csv"),
    ],
)
def test_commands(arguments, says, cli, tmp_path):
    (tmp_path / "stillhouse.json").write_text("{}")  # enough of a model to look at the input first
    one_line(cli(*(part.format(directory=tmp_path) for part in arguments), code=2), says)


def test_json_says_the_error_as_an_object(cli):
    done = cli("run", "opinion", "--json", code=2)
    error = json.loads(done.stdout)["error"]
    assert error["code"] == 2 and "opinion" in error["message"] and "opinions" in error["fix"]


def test_a_long_text_is_a_text_not_a_file_name(cli):
    done = cli("predict", "opinions", "word " * 2000, code=2)
    one_line(done, 'no model "opinions"')


def test_debug_shows_where(cli):
    assert "Traceback" in cli("--debug", "run", "opinion", code=2).stderr


def test_a_home_without_write_permission(cli, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o555)
    # Root may write everywhere but into the kernel's own directories.
    cli.home = (Path("/proc") if os.geteuid() == 0 else tmp_path / "locked") / "home"
    one_line(cli("run", "opinions", "--local", code=2), "cannot write to the home directory")


@pytest.mark.parametrize(
    "name", ["2024.csv", "2024-06-01.csv", "true.csv", "bewertungen_ü.csv", "a b (1).csv", "ü.csv"]
)
def test_new_writes_a_recipe_that_can_be_planned_whatever_the_file_is_called(name, cli, tmp_path):
    (tmp_path / name).write_text("body,stars\n" + GOOD)
    recipe = cli.json("new", name, "--text", "body", "--label", "stars")["recipe"]
    steps = cli.json("plan", recipe)["steps"]
    assert (steps[0]["name"], steps[-1]["name"]) == ("data", "release")
    one_line(cli("new", name, "--text", "body", "--label", "stars", code=2), "is there already")


def test_new_reads_more_of_longer_texts(cli, tmp_path):
    (tmp_path / "long.csv").write_text("text,label\n" + "".join(f"{'word ' * 160}{i},{i % 2}\n" for i in range(60)))
    recipe = cli.json("new", "long.csv")["recipe"]
    assert "head: {with: {max_length: 256}}" in (tmp_path / recipe).read_text()
    assert cli.json("plan", recipe)["steps"]


def test_a_model_directory_that_is_none_or_broken(cli, tmp_path):
    for content, says in (("{", "is not JSON"), ("{}", "does not load")):
        (tmp_path / "stillhouse.json").write_text(content)
        (tmp_path / "tokenizer.json").write_text("{")
        (tmp_path / "model.onnx").write_bytes(b"noise")
        one_line(cli("predict", str(tmp_path), "a text", code=2), says)


@pytest.mark.parametrize("damage", ["noise", "directory"])
def test_a_registry_that_cannot_be_read(damage, cli):
    cli.home.mkdir()
    database = cli.home / "mlflow.db"
    database.mkdir() if damage == "directory" else database.write_bytes(b"no database" * 100)
    for arguments in (("models",), ("predict", "opinions", "a text"), ("run", "opinions")):
        one_line(cli(*arguments, code=2), "mlflow.db cannot be read")


def test_an_output_that_cannot_be_written(cli, tmp_path):
    with open("/dev/full", "w") as full:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "recipes"], stdout=full, stderr=subprocess.PIPE, text=True
        )
        message = process.communicate()[1]
    assert process.returncode == 1 and "No space left on device" in message and "Traceback" not in message
    closed = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m flows.cli recipes >&-"], stderr=subprocess.PIPE, text=True
    )
    assert closed.returncode == 0 and not closed.stderr, closed.stderr


def test_lines_of_the_standard_input(cli, tmp_path):
    def predict(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
        command = [sys.executable, "-m", "flows.cli", "predict", "opinions", "-", *arguments]
        return subprocess.run(command, env=cli.environment(), cwd=tmp_path, input=b"caf\xe9\n", capture_output=True)

    for arguments, says in (((), "is not UTF-8"), (("-o", "out.csv"), "--output is for files")):
        done = predict(*arguments)
        assert done.returncode == 2 and says.encode() in done.stderr and b"Traceback" not in done.stderr, done.stderr


def test_a_prefect_server_that_does_not_answer(cli, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    one_line(cli("monitor", "opinions", code=2), "the Prefect server http://127.0.0.1:9/api does not answer")


def test_a_prefect_database_that_cannot_be_read(cli, tmp_path):
    (tmp_path / "rows.csv").write_text("text,label\n" + GOOD)
    (cli.home / "prefect").mkdir(parents=True)
    (cli.home / "prefect" / "prefect.db").write_bytes(b"no database" * 100)
    done = cli(
        "run", "opinions", "--set", "data.source=rows.csv", "--set", "data.label=label", "--until", "data", code=2
    )
    one_line(done, "prefect.db cannot be read")


@pytest.mark.parametrize("days", ["-1", "nan", "inf"])
def test_days_that_are_none(days, cli):
    one_line(cli("store", "gc", "--days", days, code=2), "are no time to keep things")


def test_the_command_alone_is_its_help(cli):
    done = cli(code=2)
    assert done.stdout.startswith("Usage: stillhouse") and done.stderr == ""
    assert cli("--version").stdout.startswith("stillhouse ")


def test_a_model_directory_that_is_not_there(cli):
    one_line(cli("predict", "./nowhere", "a text", code=2), "no directory ./nowhere")


def test_a_home_that_is_a_file_and_an_output_without_a_name(cli, tmp_path):
    (tmp_path / "rows.csv").write_text("text\nhi\n")
    one_line(cli("predict", "./", str(tmp_path / "rows.csv"), "-o", "", code=2), "names no file")
    cli.home = tmp_path / "rows.csv"
    one_line(cli("models", code=2), "is a file")
