"""Settings: everything that determines one training run except the seed, as frozen, validated data.

Each field of Settings is declared once, by `setting(...)`: its default, limits or choices, label, symbol, unit,
help and section. The widget, the check, the JSON key and the URL key all come from that declaration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, Field, ValidationError, model_validator

from .activations import ACTIVATIONS
from .data import DATASETS
from .frozen import Frozen, with_more
from .inits import INITS
from .norms import NORMS, PLACEMENTS
from .optimizers import OPTIMIZERS

SECTIONS = ("Data", "Network", "Normalization", "Training", "Recording")
STATISTICS = {"batch": "of the mini-batch", "moving": "moving averages, frozen"}
RESCALE = {"learned": "learned", "fixed": "fixed at 1 and 0"}
SAMPLING = {"epochs": "in epochs", "replacement": "with replacement"}
MAX_ARMS, MAX_SEEDS, MAX_LABEL = 6, 8, 40
ALONE = "batch_size is 1; batch norm needs at least 2 examples to have a variance. Raise it or choose layer norm."


class About(NamedTuple):
    """What a person needs to know of one setting; everything shown about it comes from here."""

    label: str
    section: str
    help: str
    symbol: str = ""
    unit: str = ""
    choices: Mapping[str, str] | None = None  # value -> label
    log: bool = False  # the control moves in ratios
    step: float | None = None
    shared: bool = False  # the same for all arms, which advance together


def setting(default: Any, label: str, section: str, help: str, **more: Any) -> Any:
    """Declare one setting; `more` holds pydantic's limits (ge, gt, le, lt) and the remaining fields of About."""
    limits = {key: more.pop(key) for key in ("ge", "gt", "le", "lt") if key in more}
    return Field(default, description=help, json_schema_extra={"about": About(label, section, help, **more)}, **limits)


def one_of(names: Mapping[str, Any]) -> AfterValidator:
    """The check that a value is one of these names."""

    def check(value: str) -> str:
        if value not in names:
            raise ValueError(f"one of {', '.join(names)}")
        return value

    return AfterValidator(check)


def formulas(registry: Mapping[str, Any]) -> str:
    """What each thing of a registry computes, for a help text."""
    return "; ".join(f"{thing.label} {thing.formula}" for thing in registry.values())


def labels(registry: Mapping[str, Any]) -> dict[str, str]:
    """The names in a registry, each with its label: the choices of a setting."""
    return {name: thing.label for name, thing in registry.items()}


class Settings(Frozen):
    """Everything that determines one training run except the seed."""

    data: Annotated[str, one_of(DATASETS)] = setting(
        "digits", "Data set", "Data", "Data to learn from; real sets come from scikit-learn.", choices=labels(DATASETS)
    )
    standardize: bool = setting(
        True,
        "Standardize inputs",
        "Data",
        "Give every input feature mean 0 and variance 1 over the training set; a constant one is only centered. "
        "Off: the features keep their own scales.",
    )
    depth: int = setting(
        20, "Depth", "Network", "Number of hidden layers.", symbol="L", unit="hidden layers", ge=1, le=100
    )
    width: int = setting(
        64, "Width", "Network", "Number of units in each hidden layer.", symbol="d", unit="units", ge=1, le=1024
    )
    activation: Annotated[str, one_of(ACTIVATIONS)] = setting(
        "sigmoid",
        "Activation",
        "Network",
        f"The nonlinearity of each hidden layer, h(u): {formulas(ACTIVATIONS)}.",
        symbol="h",
        choices=labels(ACTIVATIONS),
    )
    init: Annotated[str, one_of(INITS)] = setting(
        "xavier",
        "Initial weights",
        "Network",
        "Scale of the random initial weights; biases start at 0.",
        choices=labels(INITS),
    )
    init_gain: float = setting(
        1.0,
        "Initial gain",
        "Network",
        "Factor on every initial weight. Of a layer with a norm before its activation it changes only the effective "
        "learning rate; the readout, which no norm follows, gives larger outputs.",
        unit="×",
        gt=0,
        le=100,
        log=True,
    )
    norm: Annotated[str, one_of(NORMS)] = setting(
        "none",
        "Normalization",
        "Normalization",
        "Batch norm: per unit, over the examples. Layer norm: per example, over the units.",
        choices=labels(NORMS),
    )
    placement: Annotated[str, one_of(PLACEMENTS)] = setting(
        "before",
        "Placement",
        "Normalization",
        "Normalize the pre-activation a (before) or the activation z (after).",
        choices=PLACEMENTS,
    )
    alpha: float = setting(
        0.9,
        "Moving-average weight",
        "Normalization",
        "Weight of the OLD value in the moving averages used at inference. PyTorch's momentum is 1 - α.",
        symbol="α",
        ge=0,
        le=1,
        step=0.001,
    )
    delta: float = setting(
        1e-5,
        "Variance offset",
        "Normalization",
        "Added to the variance so that the denominator stays away from 0. PyTorch calls it eps.",
        symbol="δ",
        gt=0,
        le=1,
        log=True,
    )
    statistics: Annotated[str, one_of(STATISTICS)] = setting(
        "batch",
        "Statistics in training",
        "Normalization",
        "What batch norm normalizes with while it trains: each mini-batch's own statistics, or its moving averages, "
        "which then stand still (frozen, as in fine-tuning).",
        choices=STATISTICS,
    )
    rescale: Annotated[str, one_of(RESCALE)] = setting(
        "learned",
        "Gamma and beta",
        "Normalization",
        "Learn the standard deviation gamma and the mean beta of each unit after the norm, or leave them at 1 and 0.",
        symbol="γ, β",
        choices=RESCALE,
    )
    noise_shift: float = setting(
        0.0,
        "Noise: shift",
        "Normalization",
        "Noisy batch norm: at every step, after batch norm, each unit is shifted by a random number between "
        "−this and +this (Santurkar et al. 2018 take 0.5).",
        ge=0,
        le=10,
    )
    noise_scale: float = setting(
        0.0,
        "Noise: scale",
        "Normalization",
        "Noisy batch norm: at every step, after batch norm, each unit is multiplied by a random number between "
        "1 and 1 + this (Santurkar et al. 2018 take 0.25).",
        ge=0,
        le=10,
    )
    optimizer: Annotated[str, one_of(OPTIMIZERS)] = setting(
        "sgd", "Optimizer", "Training", "The update rule.", choices=labels(OPTIMIZERS)
    )
    learning_rate: float = setting(
        0.1, "Learning rate", "Training", "Factor on every parameter's update.", symbol="η", gt=0, le=100, log=True
    )
    weight_decay: float = setting(
        0.0, "Weight decay", "Training", "Adds this times the parameter to its gradient (L2).", symbol="λ", ge=0, le=1
    )
    batch_size: Annotated[int, Field(ge=1)] | Literal["full"] = setting(
        128,
        "Mini-batch size",
        "Training",
        "Examples in a mini-batch, from 1 to the size of the training set; full is the training set.",
        symbol="K",
        unit="examples",
    )
    sampling: Annotated[str, one_of(SAMPLING)] = setting(
        "epochs",
        "Mini-batches",
        "Training",
        "In epochs: a new order each epoch, no example twice, the incomplete last mini-batch left out. "
        "With replacement: independent draws, as the theory of the moving averages' noise assumes.",
        choices=SAMPLING,
    )
    steps: int = setting(
        500, "Steps", "Training", "Number of updates.", unit="updates", ge=0, le=1_000_000, shared=True
    )
    score_every: int = setting(
        0,
        "Score every",
        "Recording",
        "Steps between two scorings of the whole training and test set. 0: automatic, "
        "about a tenth of the training time and at least ten times a run.",
        unit="steps",
        ge=0,
        le=1_000_000,
        shared=True,
    )
    budget_mb: int = setting(
        512,
        "Recording budget",
        "Recording",
        "Disk space of a run. While it lasts every step is kept exactly; "
        "beyond it old steps are kept as mean, min and max.",
        unit="MB",
        ge=8,
        le=16_384,
        shared=True,
    )

    @property
    def n_train(self) -> int:
        """N, the number of training examples."""
        return DATASETS[self.data].n_train

    @property
    def mini_batch(self) -> int:
        """K, the mini-batch size as a number."""
        return self.n_train if self.batch_size == "full" else self.batch_size

    @property
    def frozen(self) -> bool:
        """Whether it trains with batch norm's moving averages, which stand still then."""
        return self.norm == "batch" and self.statistics == "moving"

    @property
    def shape(self) -> tuple:
        """What networks must have in common to train as slices of one stack."""
        return tuple(getattr(self, name) for name in STACKED)

    @model_validator(mode="wrap")
    @classmethod
    def can_work(cls, asked: Any, handler: Any) -> Settings:
        """Refuses what does not go together; where single fields are wrong, what the others say is told as well."""
        try:
            settings = handler(asked)
        except ValidationError as error:
            wrong = {e["loc"][0] for e in error.errors() if e["loc"]}
            if not isinstance(asked, Mapping) or not wrong & set(asked):
                raise
            rest = cls.model_construct(**{name: value for name, value in asked.items() if name not in wrong})
            raise with_more(error, [sentence for fields, sentence in rest.clashes() if not wrong & fields]) from None
        if found := [sentence for _, sentence in settings.clashes()]:
            raise ValueError("\n".join(found))
        return settings

    def clashes(self) -> list[tuple[set[str], str]]:
        """What does not go together: the fields, and a sentence."""
        n = self.n_train
        large = (
            f"batch_size is {self.batch_size}; {self.data} has only {n:,} training examples. "
            f"Lower it to at most {n:,} or choose full."
        )
        thin = "width is 1; layer norm needs at least 2 units to have a variance. Raise it or choose batch norm."
        found = (
            (self.mini_batch > n, {"batch_size", "data"}, large),
            (
                self.norm == "batch" and self.statistics == "batch" and self.mini_batch == 1,
                {"norm", "statistics", "batch_size"},
                ALONE,
            ),
            (self.norm == "layer" and self.width == 1, {"norm", "width"}, thin),
        )
        return [(fields, sentence) for wrong, fields, sentence in found if wrong]


STACKED = ("data", "standardize", "depth", "width", "activation", "statistics", "optimizer", "batch_size", "sampling")


def about(name: str) -> About:
    """What a person needs to know of the setting `name`."""
    return Settings.model_fields[name].json_schema_extra["about"]


def limits(name: str) -> tuple[float | None, float | None]:
    """The smallest and the largest value of the setting `name`; None where there is none."""
    info = Settings.model_fields[name]
    bound = {key: getattr(m, key) for m in info.metadata for key in ("ge", "gt", "le", "lt") if hasattr(m, key)}
    return bound.get("ge", bound.get("gt")), bound.get("le", bound.get("lt"))


SHARED = tuple(name for name in Settings.model_fields if about(name).shared)
OWN = tuple(name for name in Settings.model_fields if name not in SHARED)  # what an arm may change
