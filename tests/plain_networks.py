"""Networks as one would write them down, with autograd: what the laws are held against."""


def passed(x, weights, h, norm=None, placement="before"):
    """(a, z) of each layer that x passes, a norm behind h within z; their gradients are kept. norm: a function."""
    told = []
    for weight in weights:
        a = x @ weight.requires_grad_()
        x = h(norm(a) if norm and placement == "before" else a)
        x = norm(x) if norm and placement == "after" else x
        a.retain_grad()
        x.retain_grad()
        told.append((a, x))
    return told
