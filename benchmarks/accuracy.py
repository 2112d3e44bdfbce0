"""Relative errors of every path against the same model in float64: prints JSON."""

import json

import torch
from ours import make

from scdyn import kernels

N_CELLS = 2


def results(model, bins, precision):
    """Representations, and the gradient of their mean square, as flat float64."""
    model.zero_grad()
    model.set_precision(precision)
    output = model(*bins)
    output.double().square().mean().backward()
    gradient = torch.cat(
        [p.grad.flatten().double() for p in model.parameters() if p.grad is not None]
    )
    return output.detach().double().flatten(), gradient


def main():
    rows = []
    compiled = kernels.library
    for size in "SM":
        model, bins = make(size)
        bins = bins[:, :N_CELLS]
        found = {"kernels, float32": results(model, bins, "float32")}
        kernels.library = lambda *_: None
        found["torch, float32"] = results(model, bins, "float32")
        found["torch, bfloat16"] = results(model, bins, "bfloat16")
        exact = results(model.double(), bins, "float32")
        kernels.library = compiled
        for path, pair in found.items():
            errors = [float((a - b).norm() / b.norm()) for a, b in zip(pair, exact, strict=True)]
            rows.append({"path": path, "size": size, "output": errors[0], "gradient": errors[1]})
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
