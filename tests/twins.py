"""The lab's networks built from torch.nn and trained by autograd and torch.optim: what the engine is held against."""

from inspect import isgenerator

import torch
from torch import nn

from bnlab.experiment import Arm, Experiment, Settings
from bnlab.group import Group
from bnlab.probes import at_once
from bnlab.stack import Stack

ACTIVATION = {
    "linear": nn.Identity,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}
KINDS = [("none", "before"), ("layer", "after"), ("batch", "after"), ("batch", "before"), ("layer", "before")]


def every_kind(**settings) -> Experiment:
    """An experiment with one arm of each norm and placement."""
    arms = tuple(Arm(label=f"{n} {p}", changes={"norm": n, "placement": p}) for n, p in KINDS)
    return Experiment(settings=Settings(**settings), arms=arms)


def optimizer(s: Settings, parameters):
    if s.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=s.learning_rate, weight_decay=s.weight_decay)
    momentum = 0.9 if s.optimizer == "momentum" else 0.0
    return torch.optim.SGD(parameters, lr=s.learning_rate, weight_decay=s.weight_decay, momentum=momentum)


class Twin(nn.Module):
    """One slot of a stack as plain torch modules with the same weights; keeps every a and z it computes."""

    def __init__(self, stack: Stack, slot: int):
        super().__init__()
        s = self.settings = stack.settings[slot]
        norm = {
            "none": lambda: nn.Identity(),
            "batch": lambda: nn.BatchNorm1d(stack.d, eps=s.delta, momentum=1 - s.alpha),
            "layer": lambda: nn.LayerNorm(stack.d, eps=s.delta),
        }[s.norm]
        fan_in = stack.p["weight_in"].shape[1]
        self.linear = nn.ModuleList(nn.Linear(fan_in if l == 0 else stack.d, stack.d) for l in range(stack.L))
        self.norm = nn.ModuleList(norm() for _ in range(stack.L))
        self.activation = ACTIVATION[s.activation]()
        self.readout = nn.Linear(stack.d, stack.p["readout"].shape[2])
        self.noise = stack.noise.get(slot)
        self.to(stack.dtype)
        if s.statistics == "moving":
            self.norm.eval()
        with torch.no_grad():
            for l, linear in enumerate(self.linear):
                linear.weight.copy_(stack.layers[l].weight[slot].T)
                linear.bias.copy_(stack.layers[l].bias[slot, 0])
                if s.norm != "none":
                    self.norm[l].weight.copy_(stack.p["gamma"][l, slot - stack.normed.start, 0])
                    self.norm[l].bias.copy_(stack.p["beta"][l, slot - stack.normed.start, 0])
            self.readout.weight.copy_(stack.p["readout"][slot].T)
            self.readout.bias.copy_(stack.p["readout_bias"][slot, 0])

    def forward(self, x):
        self.a, self.z = [], []
        for l, linear in enumerate(self.linear):
            a = linear(x)
            if a.requires_grad:
                a.retain_grad()
            z = self.activation(self.normalized(a, l)) if self.settings.placement == "before" else self.activation(a)
            x = self.normalized(z, l) if self.settings.placement == "after" else z
            self.a.append(a)
            self.z.append(z)
        return self.readout(x)

    def normalized(self, x, l):
        x = self.norm[l](x)
        if self.noise is None:
            return x
        return x * self.noise.scale[l] + self.noise.shift[l]

    def loss(self, x, y):
        outputs = self(x)
        if y.dtype == torch.int64:
            return nn.functional.cross_entropy(outputs, y)
        return nn.functional.mse_loss(outputs[:, 0], y)


def grouped(experiment, dtype=torch.float64):
    """The only stack of an experiment with its data, before its first step."""
    with torch.no_grad():
        return Group(experiment, 0, "cpu", dtype)


def gradient(made, t=0):
    """The mini-batches x and y of step t, after forward and backward on them."""
    with torch.no_grad():
        x, y = made.mini_batch(t)
        made.stack.gradient(x, y, made.rows)
    return x, y


def group(step=3, **settings):
    """A group of every kind in float64, some steps into its training."""
    asked = {"depth": 4, "width": 7, "batch_size": 12, "data": "wine", "activation": "tanh", "learning_rate": 0.05}
    made = grouped(every_kind(**asked | settings))
    with torch.no_grad():
        for t in range(step):
            made.step(t, False)
    return made


def look(probe, made, **options):
    with torch.no_grad():
        found = probe(made, **options)
        return at_once(found) if isgenerator(found) else found


def twins(made):
    """The twin of every network of a group, and its next mini-batch."""
    with torch.no_grad():
        x, y = made.mini_batch(made.stack.t)
        x = x.clone()
    return [(Twin(made.stack, slot), x[slot], y[slot]) for slot in range(made.stack.S)]
