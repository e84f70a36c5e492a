"""Recipe → plan: every step's settings, inputs and key, and whether the store has it. Runs nothing, writes nothing."""

from collections.abc import Callable
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipelines.load import explain_validation, shipped_recipes
from pipelines.schema import Recipe, Resources, Step
from stillhouse.artifact import Artifact
from stillhouse.code_digest import code_digests
from stillhouse.errors import UserError, nearest
from stillhouse.files import read_json
from stillhouse.keys import digest, library_versions
from stillhouse.machine import fingerprint
from stillhouse.method import Method, Source
from stillhouse.methods import METHODS, load_method
from stillhouse.source import DigestMemo, resolve_source
from stillhouse.store import Store

REGISTRY = "registry:"
Against = Callable[[str, str], dict[str, Any] | None]
"""`against(registered name, key of the candidate's model)`: the champion to be measured against."""
ResolveModel = Callable[[str], Artifact | None]
"""`NAME@ALIAS[/STEP]` → the artifact, or None when there is none yet."""


@dataclass(frozen=True)
class PlannedStep:
    """A step with everything that decides its result."""

    name: str
    uses: str
    kind: str
    key: str
    settings: dict[str, Any]
    seed: int
    inputs: dict[str, list[Artifact]]
    sources: dict[str, Source]
    parts: dict[str, Any]
    resources: Resources
    hit: bool
    wrong: str = ""
    """Why a finished artifact cannot be used: damaged, or made from other inputs."""
    skipped: bool = False
    against: dict[str, Any] | None = None

    @property
    def artifact(self) -> Artifact:
        return Artifact(self.key, self.kind)


@dataclass(frozen=True)
class Plan:
    """All steps of a recipe, inputs before what they feed."""

    recipe: Recipe
    path: Path
    steps: list[PlannedStep]
    pinned: dict[str, str] = field(default_factory=dict)
    """Hub revisions, to be written to the lock file by the run."""
    memo: DigestMemo = field(default_factory=lambda: DigestMemo(None))

    @property
    def complete(self) -> bool:
        return all(step.hit for step in self.steps)

    def step(self, name: str) -> PlannedStep:
        found = {step.name: step for step in self.steps}
        if name not in found:
            raise UserError(f'no step "{name}" in {self.recipe.name}', nearest(name, set(found)))
        return found[name]


@dataclass(frozen=True)
class World:
    """What a plan needs to know besides the recipe: the store and the registry's answers."""

    store: Store
    against: Against = lambda name, key: None
    resolve_model: ResolveModel = lambda spec: None


def make_plan(recipe: Recipe, path: Path, world: World, until: str | None = None) -> Plan:
    """Plan `recipe`; with `until`, only that step and what it needs. Raises `UserError` on the first mistake."""
    where = path.name
    order = _order(recipe, where)
    wanted = set(order) if until is None else needed(recipe, until)
    pinned = read_pinned(path, world.store.home)
    memo = DigestMemo(world.store.root / "digests.json")
    done: dict[str, PlannedStep] = {}
    outputs: dict[str, Artifact] = {}
    for name in order:
        step = recipe.steps[name]
        context = _Context(recipe, where, world, outputs, pinned, memo)
        planned = _plan_step(name, step, context)
        outputs[name] = _skip_target(name, step, outputs, where, planned) if step.skip else planned.artifact
        done[name] = planned
    steps = [done[name] for name in order if name in wanted]
    return Plan(recipe, path, _drop_skipped(steps), pinned, memo)


@dataclass(frozen=True)
class _Context:
    recipe: Recipe
    where: str
    world: World
    outputs: dict[str, Artifact]
    pinned: dict[str, str]
    memo: DigestMemo


def _order(recipe: Recipe, where: str) -> list[str]:
    graph: dict[str, list[str]] = {}
    for name, step in recipe.steps.items():
        graph[name] = []
        for slot, refs in step.inputs.items():
            for ref in [refs] if isinstance(refs, str) else refs:
                if ref.startswith(REGISTRY):
                    continue
                if ref not in recipe.steps:
                    raise UserError(
                        f'{where}: steps.{name}.inputs.{slot}: no step "{ref}"', nearest(ref, set(recipe.steps))
                    )
                graph[name].append(ref)
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        circle = " → ".join(error.args[1])
        raise UserError(
            f"{where}: the steps feed each other in a circle: {circle}", "Remove one of the inputs"
        ) from None


def needed(recipe: Recipe, until: str) -> set[str]:
    """The step `until` and all it is made from."""
    if until not in recipe.steps:
        raise UserError(f'--until: no step "{until}"', nearest(until, set(recipe.steps)))
    found: set[str] = set()
    waiting = [until]
    while waiting:
        name = waiting.pop()
        if name in found or name.startswith(REGISTRY):
            continue
        found.add(name)
        for refs in recipe.steps[name].inputs.values():
            waiting.extend([refs] if isinstance(refs, str) else refs)
    return found


def _plan_step(name: str, step: Step, context: _Context) -> PlannedStep:
    where = f"{context.where}: steps.{name}"
    if step.uses not in METHODS:
        raise UserError(f'{where}.uses: unknown method "{step.uses}"', nearest(step.uses, set(METHODS)))
    method_class = load_method(step.uses)
    try:
        method = method_class.model_validate(step.settings)
    except ValidationError as error:
        raise UserError(*explain_validation(error, method_class, f"{where}.with")) from None
    inputs = _inputs(step, method_class, where, context)
    try:
        method.check({slot for slot, items in inputs.items() if items})
    except UserError as error:
        raise UserError(f"{where}: {error.message}", error.fix) from None
    seed = context.recipe.seed if step.seed is None else step.seed
    sources = {
        key: resolve_source(getattr(method, key), what, Path.cwd(), context.pinned, context.memo)
        for key, what in method.external.items()
        if getattr(method, key) is not None
    }
    settings = method.model_dump(mode="json")
    parts: dict[str, Any] = {
        "method": step.uses,
        "settings": {k: v for k, v in settings.items() if k not in method.not_in_key and k not in method.external},
        "seed": seed,
        "inputs": {slot: [item.key for item in items] for slot, items in sorted(inputs.items()) if items},
        "external": {key: source.digest for key, source in sorted(sources.items())},
        "code": code_digests(method_class.__module__),
        "libraries": library_versions(method.libraries),
    }
    if method.measures:
        parts["machine"] = fingerprint()
    against = None
    if method.fenced:
        against = context.world.against(context.recipe.registered_name, inputs["model"][0].key)
        parts["against"] = against
        parts["recipe"] = context.recipe.name  # the model card says it
    key = digest(parts)
    hit, wrong = _look_up(key, method_class, context.world.store)
    if not (hit or step.skip):
        method.check_sources(sources)
    return PlannedStep(
        name, step.uses, method.output, key, settings, seed, inputs, sources, parts, step.resources, hit, wrong,
        step.skip, against,
    )  # fmt: skip


def _inputs(step: Step, method: type[Method], where: str, context: _Context) -> dict[str, list[Artifact]]:
    unknown = set(step.inputs) - set(method.slots)
    if unknown:
        slot = sorted(unknown)[0]
        raise UserError(f'{where}.inputs: {step.uses} has no slot "{slot}"', nearest(slot, set(method.slots)))
    found: dict[str, list[Artifact]] = {}
    for slot, spec in method.slots.items():
        kinds, optional, many = parse_slot(spec)
        refs = step.inputs.get(slot, [])
        refs = [refs] if isinstance(refs, str) else refs
        if slot == "champion":
            refs = [one for ref in refs for one in _measured_against(ref, found, context)]
        items = [item for ref in refs if (item := _resolve(ref, optional, f"{where}.inputs.{slot}", context))]
        if not items and not optional:
            raise UserError(f'{where}.inputs: the slot "{slot}" ({spec}) is empty', f"Add inputs: {{{slot}: STEP}}")
        if len(items) > 1 and not many:
            raise UserError(f"{where}.inputs.{slot} takes one step, not {len(items)}", "Name one")
        for ref, item in zip(refs, items, strict=False):
            if not any(item.kind == kind or item.kind.startswith(f"{kind}.") for kind in kinds):
                raise UserError(
                    f"{where}.inputs.{slot}: {ref} gives {item.kind}, the slot takes {' or '.join(kinds)}",
                    _suggest(kinds, context.outputs),
                )
        if items:
            found[slot] = items
    return found


def _measured_against(ref: str, found: dict[str, list[Artifact]], context: _Context) -> list[str]:
    """`registry:NAME@champion` as the version that the candidate in slot `model` is measured against, if any.

    Once the candidate is champion itself, that is still the one before it: an unchanged recipe stays a hit.
    """
    name, _, alias = ref.removeprefix(REGISTRY).partition("@")
    if not ref.startswith(REGISTRY) or alias != "champion" or "model" not in found:
        return [ref]
    against = context.world.against(name, found["model"][0].key)
    return [f"{REGISTRY}{name}/{against['version']}"] if against else []


def _suggest(kinds: list[str], outputs: dict[str, Artifact]) -> str:
    fitting = [n for n, a in outputs.items() if any(a.kind == k or a.kind.startswith(f"{k}.") for k in kinds)]
    return f"Fitting steps: {', '.join(fitting)}" if fitting else "No earlier step gives that"


def parse_slot(spec: str) -> tuple[list[str], bool, bool]:
    """`"model.torch | model.onnx+?"` → (kinds, optional, many)."""
    optional, many = "?" in spec, "+" in spec
    return [kind.strip(" ?+") for kind in spec.split("|")], optional, many


def _resolve(ref: str, optional: bool, where: str, context: _Context) -> Artifact | None:
    if not ref.startswith(REGISTRY):
        return context.outputs[ref]
    artifact = context.world.resolve_model(ref.removeprefix(REGISTRY))
    if artifact is None and not optional:
        raise UserError(f"{where}: {ref} is not in the registry", "`stillhouse models` lists what is")
    return artifact


def _skip_target(
    name: str, step: Step, outputs: dict[str, Artifact], where: str, planned: PlannedStep
) -> Artifact:  # fmt: skip
    ref = step.inputs.get("model")
    target = outputs.get(ref) if isinstance(ref, str) else None
    if target is None or target.kind != planned.kind:
        raise UserError(
            f"{where}: steps.{name} cannot be skipped", f"skip needs a `model` input of kind {planned.kind}"
        )
    return target


def _drop_skipped(steps: list[PlannedStep]) -> list[PlannedStep]:
    return [step for step in steps if not step.skipped]


def _look_up(key: str, method: type[Method], store: Store) -> tuple[bool, str]:
    manifest, wrong = store.check(key)
    if wrong:
        return False, f"damaged: {wrong}"
    if manifest is None:
        return False, ""
    slot = store.rebuilt_input(manifest) if method.strict else ""
    return not slot, f'the input "{slot}" was rebuilt and differs' if slot else ""


def lock_file(path: Path, home: Path) -> Path:
    """Where resolved Hub revisions are kept: beside the recipe, or in the home for a shipped one."""
    shipped = shipped_recipes()
    if shipped.get(path.stem) == path:
        return home / f"{path.stem}.lock.json"
    return path.with_suffix(".lock.json")


def read_pinned(path: Path, home: Path) -> dict[str, str]:
    file = lock_file(path, home)
    try:
        return dict(read_json(file)) if file.is_file() else {}
    except (ValueError, TypeError):
        raise UserError(f"{file} is not a lock file", "Delete it: revisions will be resolved anew") from None
