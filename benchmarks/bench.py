"""Speed and memory against the authors' package: ``make bench``.

Each row is measured by one process per package, which alternate; the figures are medians, and the
ratio is the median of the ratios of consecutive repetitions.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
LIBRARY = HERE.parent / "workflow" / "scripts"
# The settings of the rules (scdyn.training.openmp); ours.py calls devices.keep_memory.
OURS = {"PYTHONPATH": str(LIBRARY), "OMP_WAIT_POLICY": "passive"}
# The same settings for the peer, which otherwise runs with its defaults.
TUNED = {
    "OMP_WAIT_POLICY": "passive",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**36),
}
# Disable AVX-512 in torch and its libraries, as on a processor without it.
AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
}
ROWS = [
    ("train", "S", "training step"),
    ("train", "M", "training step"),
    ("train", "F", "training step"),
    ("infer", "S", "inference"),
    ("infer", "M", "inference"),
    ("infer", "F", "inference"),
    ("explain", "M", "Integrated Gradients, 50 steps"),
    ("load", "5,000 x 20,000", "loader"),
]
GPU_ROWS = [
    ("train", "F x 16", "training step"),
    ("infer", "F x 16", "inference"),
]


class Worker:
    """A process that repeats a measurement on request."""

    def __init__(self, command, environment):
        self.process = subprocess.Popen(
            command, env=os.environ | environment, cwd=HERE, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{' '.join(self.process.args)} ended with status {self.process.wait()}.")
        return json.loads(line)

    def repeat(self):
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def measure(what, size, folder, device, peer_python, n_times, limit):
    """Measure both packages in alternation; ``limit`` restricts the vector instructions."""
    arguments = [what, size, str(folder), device]
    sides = {
        "ours": Worker([sys.executable, "ours.py", *arguments], OURS | limit),
        "peer": Worker([peer_python, "peer.py", *arguments], limit),
    }
    if what == "train":
        default = [sys.executable, "ours.py", "train_default", *arguments[1:]]
        sides["default"] = Worker(default, OURS | limit)
    # At size F, two processes of the peer would not fit into 24 GB.
    if what == "train" and size in ("S", "M"):
        sides["tuned peer"] = Worker([peer_python, "peer.py", *arguments], TUNED | limit)
    for worker in sides.values():
        worker.repeat()  # the first repetition is slower, because memory is allocated
    answers = {name: [] for name in sides}
    for _ in range(n_times):
        for name, worker in sides.items():
            answers[name].append(worker.repeat())
    for worker in sides.values():
        worker.close()
    return answers


def compare_speed(what, size, answers, peer="peer", ours="ours"):
    """Compare the cells per second of two sides."""
    ours, peer = (
        [answer["cells"] / answer["seconds"] for answer in answers[name]] for name in (ours, peer)
    )
    return {
        "what": what,
        "size": size,
        "ours": median(ours),
        "peer": median(peer),
        "ratio": median(a / b for a, b in zip(ours, peer, strict=True)),
        "unit": "cells/s",
    }


def compare_memory(size, answers):
    """Compare the peak memory of both packages."""
    ours, peer = (answers[name][-1]["peak_gib"] for name in ("ours", "peer"))
    return {
        "what": "peak memory of training",
        "size": size,
        "ours": ours,
        "peer": peer,
        "ratio": ours / peer,
        "unit": "GiB",
    }


def run_json(program, *arguments, limit=None):
    """Run a program of this folder and return the JSON that it prints."""
    command = [sys.executable, program, *arguments]
    answer = subprocess.run(
        command, cwd=HERE, env=os.environ | OURS | (limit or {}), stdout=subprocess.PIPE, text=True,
        check=True,
    )  # fmt: skip
    return json.loads(answer.stdout)


def find_instructions(device, limit):
    """Name the vector instructions that torch uses with these variables, such as AVX512."""
    if device != "cpu":
        return "GPU"
    code = "import json, torch; print(json.dumps(torch.backends.cpu.get_cpu_capability()))"
    return run_json("-c", code, limit=limit)


def find_processor_instructions():
    """Name the widest vector instructions of the processor, as torch names them."""
    words = Path("/proc/cpuinfo").read_text().split()
    names = {"avx512f": "AVX512", "avx2": "AVX2"}
    return next((name for flag, name in names.items() if flag in words), "DEFAULT")


def describe_machine():
    """Describe processor, cores, memory and system."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = {line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": ", ".join(sorted(names)) or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory, 1),
        "system": platform.platform(),
    }


def read_versions(python):
    """Read the versions of Python, torch and the measured package."""
    code = (
        "import json, platform, torch; from importlib import metadata as m;"
        "names = {d.metadata['Name'].lower() for d in m.distributions()};"
        "v = {'python': platform.python_version(), 'torch': torch.__version__};"
        "v.update({n: m.version(n) for n in ('scdynomics', 'captum') if n in names});"
        "print(json.dumps(v))"
    )
    answer = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(answer.stdout)


def read_commit():
    """Read the commit, marked if files were changed."""
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", required=True, help="Python that has scdynomics 0.0.1")
    parser.add_argument("--repeats", type=int, default=5, help="repetitions (5)")
    parser.add_argument("--only", help="one of train, infer, explain, load")
    parser.add_argument("--sizes", default="SMF", help="sizes of the model (SMF)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--output", type=Path, help="results/latest.json, for a GPU latest_gpu.json"
    )
    options = parser.parse_args()
    on_cpu = options.device == "cpu"
    name = "latest.json" if on_cpu else "latest_gpu.json"
    output = options.output or HERE / "results" / name
    # With all instructions of this machine, and without AVX-512.
    limits = {find_instructions(options.device, {}): {}}
    if on_cpu:
        limits.setdefault(find_instructions("cpu", AVX2), AVX2)
    rows = []
    with tempfile.TemporaryDirectory(prefix="scdyn-bench-") as folder:
        for what, size, name in ROWS if on_cpu else GPU_ROWS:
            if options.only not in (None, what) or (size in "SMF" and size not in options.sizes):
                continue
            if what == "load":
                command = [sys.executable, "make_cells.py", folder]
                subprocess.run(command, cwd=HERE, env=os.environ | OURS, check=True)
            # Loading does not depend on the instructions.
            for named, limit in limits.items() if what != "load" else [*limits.items()][:1]:
                print(f"{name}, {size}, {named} ...", file=sys.stderr, flush=True)
                answers = measure(
                    what, size, folder, options.device, options.peer_python, options.repeats, limit
                )
                found = [compare_speed(name, size, answers)]
                if "tuned peer" in answers:
                    tuned = f"{name}, peer with our settings of the process"
                    found.append(compare_speed(tuned, size, answers, "tuned peer"))
                if "default" in answers:
                    default = "training step of the default architecture, and of the paper's"
                    found.append(compare_speed(default, size, answers, "ours", "default"))
                if what == "train" and size.startswith("F"):
                    found.append(compare_memory(size, answers))
                rows += [row | {"instructions": named} for row in found]
                print(*rows[-len(found) :], sep="\n", file=sys.stderr, flush=True)
    result = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": read_commit(),
        "machine": describe_machine() | {"device": options.device},
        "versions": {
            "ours": read_versions(sys.executable),
            "peer": read_versions(options.peer_python),
        },
        "repeats": options.repeats,
        "rows": rows,
        "errors": run_json("accuracy.py", options.device),
        "profile": run_json("floors.py", "F" if on_cpu else "F x 16", options.device)
        | {"instructions": next(iter(limits))},
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written to {output}; run make docs to update the pages")


if __name__ == "__main__":
    main()
