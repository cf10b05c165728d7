"""The question, as frozen data: shared settings, arms (the sides of a comparison) and seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, Field, ValidationError, model_validator

from .data import DATASETS
from .frozen import Frozen, with_more
from .optimizers import OPTIMIZERS
from .problems import enumeration, problems
from .settings import MAX_ARMS, MAX_LABEL, MAX_SEEDS, OWN, SHARED, Settings

MEMORY_BUDGET = 2 * 2**30  # bytes one worker may hold for the networks of one experiment
LARGEST_SNAPSHOT = 950_000_000  # bytes; SQLite keeps at most 1e9 in one place


class Changes(dict):
    """The settings in which an arm differs, for good."""

    def refused(self, *_: Any, **__: Any) -> None:
        raise TypeError("the changes of an arm stay as they are; make another arm.")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = refused
    __hash__ = lambda self: hash(frozenset(self.items()))  # noqa: E731
    __reduce__ = lambda self: (Changes, (dict(self),))  # noqa: E731  a copy is not filled key by key


class Arm(Frozen):
    """One side of a comparison: a label and the settings in which it differs."""

    label: str = Field(min_length=1, max_length=MAX_LABEL)
    changes: Annotated[dict[str, Any], AfterValidator(Changes)] = Field(default_factory=Changes)

    @model_validator(mode="after")
    def can_work(self) -> Arm:
        if not self.label.strip():
            raise ValueError(f"an arm has a blank label; allowed are 1 to {MAX_LABEL} characters.")
        if found := unfit(self.label):
            raise ValueError(
                f"arm label {self.label!r} has {enumeration(found)}. Remove {'them' if found[1:] else 'it'}."
            )
        return self


def unfit(label: str) -> list[str]:
    """What a label has that none may have: all of it must be seen, and a semicolon ends it in an address."""
    unseen = next((character for character in label if not character.isprintable() and character not in "\r\n"), None)
    found = (
        ("\n" in label or "\r" in label) and "a line break",
        unseen and f"an unprintable character (U+{ord(unseen):04X})",
        ";" in label and "a semicolon",
        label != label.strip(" ") and "a space at its start or end",
    )
    return [what for what in found if what]


class Network(NamedTuple):
    """One arm with one seed."""

    arm: int  # index in experiment.arms
    seed: int  # the seed itself


DEFAULT_ARMS = (
    Arm(label="no norm", changes={}),
    Arm(label="BN before", changes={"norm": "batch", "placement": "before"}),
    Arm(label="BN after", changes={"norm": "batch", "placement": "after"}),
)
FROZEN_ARMS = " (frozen arms: with their moving averages)"  # where the others normalize with something else


def default_arms(settings: Settings) -> tuple[Arm, ...]:
    """The arms of a question that names none: the first has no norm, as its label says, whatever the settings say."""
    first, *others = DEFAULT_ARMS
    plain = first if settings.norm == "none" else Arm(label=first.label, changes={"norm": "none"})
    return plain, *others


class Experiment(Frozen):
    """The question: shared settings, arms, seeds."""

    settings: Settings = Settings()
    arms: Annotated[tuple[Arm, ...], Field(min_length=1, max_length=MAX_ARMS, strict=False)] = DEFAULT_ARMS
    seeds: Annotated[
        tuple[Annotated[int, Field(ge=0, lt=2**31)], ...], Field(min_length=1, max_length=MAX_SEEDS, strict=False)
    ] = (0,)

    @model_validator(mode="wrap")
    @classmethod
    def can_work(cls, asked: Any, handler: Any) -> Experiment:
        """Refuses what does not go together; where single fields are wrong, what can be told of the rest is told."""
        try:
            experiment = handler(asked)
        except ValidationError as error:
            raise with_more(error, told_of_the_rest(asked)) from None
        if "arms" not in experiment.model_fields_set and experiment.settings.norm != "none":
            experiment = handler({**asked, "arms": default_arms(experiment.settings)})
        found = clashes(experiment.arms, experiment.seeds)
        for arm in experiment.arms:
            try:
                Settings.model_validate(experiment.settings.model_dump() | arm.changes)
            except ValidationError as error:
                found += [f"arm {arm.label!r}: {sentence}" for sentence in problems(error, OWN)]
        if found:
            raise ValueError("\n".join(found))
        if too_large := experiment.too_large:
            raise ValueError(too_large)
        return experiment

    @property
    def too_large(self) -> str | None:
        """A sentence where one worker cannot hold the networks, or the store no snapshot of them."""
        if self.memory > MEMORY_BUDGET:
            many = len(self.networks)
            need = f"{many} networks of this size need" if many > 1 else "a network of this size needs"
            return (
                f"{need} about {self.memory / 2**30:.1f} GB; the limit is {MEMORY_BUDGET / 2**30:.0f} GB. "
                "Lower depth, width, batch_size, arms or seeds."
            )
        if (largest := max(map(self.snapshot_size, self.stacks))) > LARGEST_SNAPSHOT:
            return (
                f"a snapshot of the weights, with the optimizer's memory, takes {largest / 1e9:.2f} GB; the limit is "
                f"{LARGEST_SNAPSHOT / 1e9:.2f} GB. Lower depth, width, arms or seeds, or choose the optimizer sgd."
            )
        return None

    def snapshot_size(self, stack: tuple[Network, ...]) -> int:
        """Bytes of a snapshot of a stack, about: parameters, what the optimizer remembers of each, moving averages."""
        total = 0
        for n in stack:
            s = self.arm_settings[n.arm]
            data, d, L = DATASETS[s.data], s.width, s.depth
            parameters = d * (data.n_features + (L - 1) * d + 3 * L + data.n_classes) + data.n_classes
            total += 4 * (parameters * (1 + OPTIMIZERS[s.optimizer].memory) + 2 * L * d)
        return total

    @cached_property
    def arm_settings(self) -> tuple[Settings, ...]:
        """The settings of each arm."""
        return tuple(
            Settings.model_validate(self.settings.model_dump() | arm.changes) if arm.changes else self.settings
            for arm in self.arms
        )

    @property
    def alike(self) -> list[str]:
        """A sentence for all arms that have the same settings."""
        told: dict[Settings, list[str]] = {}
        for arm, settings in zip(self.arms, self.arm_settings, strict=True):
            told.setdefault(settings, []).append(arm.label)
        same = [enumeration(labels) for labels in told.values() if len(labels) > 1]
        return [f"{labels} ask the same question: their curves will coincide." for labels in same]

    @property
    def statistics(self) -> set[str]:
        """What the arms with batch norm normalize with in training mode, as the setting has it; empty without any."""
        return {settings.statistics for settings in self.arm_settings if settings.norm == "batch"}

    @property
    def training_mode(self) -> str:
        """The mode of whatever is computed as in training, in words."""
        if self.statistics == {"moving"}:
            return "training with frozen moving averages"
        return f"training mode{FROZEN_ARMS if 'moving' in self.statistics else ''}"

    @property
    def networks(self) -> tuple[Network, ...]:
        """Every arm with every seed."""
        return tuple(Network(arm, seed) for arm in range(len(self.arms)) for seed in self.seeds)

    @cached_property
    def stacks(self) -> tuple[tuple[Network, ...], ...]:
        """The networks grouped by shape; each group trains as one stack, its networks in the order of the slots.

        Slots are ordered by what the norm does, so that it acts on one contiguous slice (see stack.py).
        """
        groups: dict[tuple, list[Network]] = {}
        for network in self.networks:
            groups.setdefault(self.arm_settings[network.arm].shape, []).append(network)
        return tuple(
            tuple(sorted(group, key=lambda n: slot_order(self.arm_settings[n.arm]))) for group in groups.values()
        )

    @property
    def memory(self) -> int:
        """Bytes training needs, about: activations and their gradients, parameters with the optimizer's state."""
        total = 0
        for n in self.networks:
            s = self.arm_settings[n.arm]
            examples = max(5 * s.mini_batch, 2 * s.n_train / s.depth)
            total += 4 * s.depth * s.width * (examples + 6 * s.width)
        return int(total)


def clashes(arms: Iterable[Arm], seeds: Sequence[int]) -> list[str]:
    """What is wrong among arms and seeds, one sentence each."""
    told = [arm.label for arm in arms]
    found = [
        f"two arms are called {label!r}. Give each arm its own label."
        for label in dict.fromkeys(told)
        if told.count(label) > 1
    ]
    if len(set(seeds)) < len(seeds):
        found.append(f"seeds are {list(seeds)}; each seed may appear only once. Remove the repeated one.")
    for arm in arms:
        found += [
            f"arm {arm.label!r}: {name} is shared by all arms, which advance together. Change it in the settings."
            for name in SHARED
            if name in arm.changes
        ]
    return found


def told_of_the_rest(asked: Any) -> list[str]:
    """What is wrong with a question of which some fields cannot be read: clashes of those that can, and the single
    fields that arms change."""
    asked = asked if isinstance(asked, Mapping) else {}
    arms = []
    for arm in asked.get("arms") if isinstance(asked.get("arms"), (list, tuple)) else ():
        with suppress(ValidationError):
            arms.append(Arm.model_validate(arm))
    seeds = asked.get("seeds")
    readable = isinstance(seeds, (list, tuple)) and all(type(seed) is int for seed in seeds)
    found = clashes(arms, seeds if readable else ())
    for arm in arms:
        for name, value in arm.changes.items():
            try:
                Settings.model_validate({name: value})
            except ValidationError as error:
                if any(e["loc"] for e in error.errors()):
                    found += [f"arm {arm.label!r}: {sentence}" for sentence in problems(error, OWN)]
    return found


SLOT_ORDER = (("none", "before"), ("layer", "after"), ("batch", "after"), ("batch", "before"), ("layer", "before"))


def slot_order(settings: Settings) -> int:
    """Where in its stack a network stands: none, norm after the activation, norm before it; batch norms adjacent."""
    return SLOT_ORDER.index((settings.norm, "before" if settings.norm == "none" else settings.placement))
