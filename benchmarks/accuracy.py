"""Relative errors of each precision, compared with float64: ``python accuracy.py DEVICE``.

Prints JSON.
"""

import json
import sys

import torch
from ours import make

from scdyn.model.layers import set_precision

N_CELLS = 2


def run_model(model, bins, precision):
    """Compute representations and the gradient of their mean square, as flat float64 on the CPU."""
    model.zero_grad()
    set_precision(model, precision)
    output = model(*bins)
    output.double().square().mean().backward()
    gradient = torch.cat(
        [p.grad.flatten().double() for p in model.parameters() if p.grad is not None]
    )
    return output.detach().double().flatten().cpu(), gradient.cpu()


def run_precisions(model, bins, device):
    """Run the model in each precision, by name."""
    bins = bins.to(device)
    model.to(device)
    return {name: run_model(model, bins, name) for name in ("float32", "bfloat16")}


def main():
    rows = []
    for size in "SM":
        model, bins = make(size)
        bins = bins[:, :N_CELLS]
        found = run_precisions(model, bins, sys.argv[1])
        exact = run_model(model.cpu().double(), bins, "float32")
        for precision, pair in found.items():
            errors = [float((a - b).norm() / b.norm()) for a, b in zip(pair, exact, strict=True)]
            rows.append(
                {"precision": precision, "size": size, "output": errors[0], "gradient": errors[1]}
            )
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
