from .registry import Registry
from typing import NamedTuple
class O(NamedTuple):
    label: str
OPTIMIZERS = Registry("optimizer")
for n in ("sgd","momentum","adam"): OPTIMIZERS[n]=O(n)
