"""The student before it is taught."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillhouse.distill._narrow import cut_weights
from stillhouse.distill.settings import DistillSettings
from stillhouse.errors import UserError
from stillhouse.method import Job
from stillhouse.models import encoder_layers, keep_layers, load_model, read_info, resized_model, tokenizer_json
from stillhouse.train._labels import check_same_task, fit_head
from stillhouse.train._stage import Candidate, data_description, input_length, new_candidate

if TYPE_CHECKING:
    from transformers.modeling_utils import PreTrainedModel


def make_student(settings: DistillSettings, job: Job, info: dict[str, Any]) -> Candidate:
    """A part of the first teacher (`info`: its description), another base, or the input model."""
    teacher = job.inputs["teachers"][0].path
    problem, labels, normalize = data_description(job)
    directory = job.path("model") if job.has("model") else teacher
    if settings.base is not None:
        student = new_candidate(settings, job, info["max_length"])
        _check_tokenizer(student.directory, teacher, settings.base)
        return student
    if settings.student_config is not None:
        model = _resized(settings, job, directory)
    else:
        model = load_model(directory, settings.dropout)
    if settings.layers is not None:
        keep_layers(model, kept_layers(settings.layers, len(encoder_layers(model)[1])))
    elif job.has("model"):
        info = read_info(directory)
        check_same_task(info, "the input model", problem, labels, settings.grow_head)
        _check_tokenizer(directory, teacher, "the input model")
    length = input_length(settings.max_length, info["max_length"], model)
    info = fit_head(model, info, labels)
    return Candidate(model, directory, {**info, "normalize": normalize, "max_length": length, "thresholds": None})


def _resized(settings: DistillSettings, job: Job, directory: Path) -> "PreTrainedModel":
    """A model of the kind in `directory` with the sizes of `student_config`."""
    sizes = {str(name): size for name, size in (settings.student_config or {}).items()}
    student = resized_model(directory, sizes, job.seed, settings.dropout)
    if settings.student_weights == "random":
        return student
    teacher = load_model(directory)
    available = len(encoder_layers(teacher)[1])
    wanted = sizes.get("num_hidden_layers", available)
    cut_weights(student, teacher, kept_layers(wanted, available))
    return student


def _check_tokenizer(student: Path, teacher: Path, name: str) -> None:
    if tokenizer_json(student) != tokenizer_json(teacher):
        raise UserError(f"{name} has another tokenizer than the teacher", "choose one with the same tokenizer")


def kept_layers(asked: int | list[int], available: int) -> list[int]:
    """The indices that `layers` means for a teacher with `available` layers, checked."""
    fix = f"the teacher has {available} layers: a number of them, or a list out of 0 to {available - 1}"
    if isinstance(asked, int):
        if not 1 <= asked <= available:
            raise UserError(f"layers: {asked} is not possible", fix)
        return evenly_spread(asked, available)
    if not asked or sorted(set(asked)) != asked or asked[0] < 0 or asked[-1] >= available:
        raise UserError(f"layers: {asked} is not an increasing list of the teacher's layers", fix)
    return asked


def evenly_spread(count: int, layers: int) -> list[int]:
    """`count` of `layers` indices, first and last included: 3 of 6 are 0, 2, 5. One layer is the first."""
    if count == 1:
        return [0]
    return [round(at * (layers - 1) / (count - 1)) for at in range(count)]
