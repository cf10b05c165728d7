from .registry import Registry
from typing import NamedTuple
class N(NamedTuple):
    label: str
NORMS = Registry("norm")
NORMS["none"]=N("none"); NORMS["batch"]=N("batch norm"); NORMS["layer"]=N("layer norm")
PLACEMENTS={"before":"before the activation","after":"after the activation"}
