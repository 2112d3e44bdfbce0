"""Promise: nothing that is read can run: no pickle, no eval, no shell, in any Python here.

Runs in the runner's environment. What the readers of other libraries do with a malicious file is
tried in tests/security/analysis and tests/security/torch.
"""

import ast
import re
from pathlib import Path

import pytest

PYTHON = sorted(
    [*Path("workflow/scripts").rglob("*.py"), *Path("benchmarks").glob("*.py")]
    + [*Path("tools/docs").glob("*.py"), Path("tools/venv-conda/bin/conda")]
)
SNAKEFILES = sorted([Path("Snakefile"), *Path("workflow/rules").glob("*.smk")])

# Modules that exist to run what they read, and functions that do, or may when told to.
MODULES = {
    "pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "imp",
    "runpy", "code", "codeop", "pty", "commands", "jsonpickle", "importlib.util",
}  # fmt: skip
FUNCTIONS = {
    "eval", "exec", "compile", "__import__", "breakpoint", "input",
    "torch.load", "torch.save", "torch.jit.load", "torch.hub.load", "torch.package.PackageImporter",
    "np.fromregex", "pd.read_pickle", "pandas.read_pickle", "pd.eval",
    "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "yaml.dump",
    "os.system", "os.popen", "os.spawnl", "os.execv", "os.execvp",
    "subprocess.getoutput", "subprocess.getstatusoutput", "importlib.import_module",
    "tempfile.mktemp", "tarfile.open", "zipfile.ZipFile", "shutil.unpack_archive",
}  # fmt: skip
METHODS = {"to_pickle", "read_pickle", "query", "extractall"}
# Of these, with a word that says why.
ALLOWED = {
    (
        "workflow/scripts/scdyn/training/devices.py",
        "ctypes.CDLL",
    ): "the C library that runs already",
    (
        "workflow/scripts/scdyn/training/distributed.py",
        "os.execvp",
    ): "torchrun, with this program as its worker",
    ("workflow/scripts/scdyn/lazy.py", "importlib.import_module"): "modules of the library itself",
    ("benchmarks/run_rule.py", "runpy"): "runs the scripts of workflow/scripts",
    ("workflow/scripts/scdyn/model/transformer.py", "self.query"): "a layer, not a table's method",
    ("workflow/scripts/scdyn/model/paper.py", "self.query"): "a layer, not a table's method",
    **{
        ("tools/docs/notebook.py", name): "runs the blocks of the tutorial that stands here"
        for name in ("compile", "eval", "exec")
    },
}
SPECIAL = {"ctypes.CDLL", "PeftModel.from_pretrained", "PeftConfig.from_pretrained"}


def name_of(node):
    """Write a function's name as the source has it, such as torch.load."""
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def is_true(node):
    return not (isinstance(node, ast.Constant) and not node.value)


def findings(source, path=""):
    """Yield what a Python source calls or imports that it must not."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                found = [node.module or "", *(f"{node.module}.{name}" for name in found)]
            for module in found:
                forbidden = {module, module.split(".")[0]} & MODULES
                if forbidden and (str(path), module) not in ALLOWED:
                    yield f"line {node.lineno}: imports {module}"
                if module in FUNCTIONS:
                    yield f"line {node.lineno}: imports {module}, which hides where it is called"
        if not isinstance(node, ast.Call):
            continue
        name = name_of(node.func)
        method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if (name in FUNCTIONS or method in METHODS) and (str(path), name) not in ALLOWED:
            yield f"line {node.lineno}: calls {name or method}"
        # A module's .eval() takes nothing; a table's runs what it is given.
        if method == "eval" and (node.args or node.keywords):
            yield f"line {node.lineno}: calls {name} with an expression"
        if name in SPECIAL and (str(path), name) not in ALLOWED:
            yield f"line {node.lineno}: calls {name}"
        for keyword in node.keywords:
            if keyword.arg in ("allow_pickle", "shell", "trust_remote_code", "weights_only"):
                wrong = is_true(keyword.value) != (keyword.arg == "weights_only")
                if wrong:
                    yield f"line {node.lineno}: {name} with {keyword.arg}"


def test_nothing_that_is_read_can_run():
    found = {path: list(findings(path.read_text(), path)) for path in PYTHON}
    assert not {path: lines for path, lines in found.items() if lines}
    assert len(PYTHON) > 100 and Path("workflow/scripts/scdyn/model/transformer.py") in PYTHON
    for path, name in ALLOWED:
        assert name in Path(path).read_text(), "allowed, and not there any more"


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from torch import load",
        "torch.load(path)",
        "np.load(path, allow_pickle=True)",
        "table.query(settings['train'])",
        "subprocess.run(f'ls {path}', shell=True)",
        "PeftModel.from_pretrained(model, folder)",
    ],
)
def test_it_would_be_found(source):
    assert list(findings(source))


def test_what_is_harmless_is_not_found():
    harmless = "model.eval()\nnp.load(path)\nyaml.safe_load(text)\nsubprocess.run(['ls', path])\n"
    assert not list(findings(harmless + "ast.literal_eval(text)\nre.compile('x')\n"))


# --- Snakefiles, which are Python with words of their own: looked at as text.


def test_snakefiles_load_no_code_and_no_rule_hands_a_command_to_a_shell():
    words = r"\b(eval|exec|__import__|pickle|joblib|shell=True|os\.system|subprocess|yaml\.load)\b"
    # Code in a rule would run in Snakemake's own process.
    blocks = r"^\s+(run|shell|notebook|wrapper|cwl|template_engine):|\bshell\("
    for path in SNAKEFILES:
        text = path.read_text()
        assert not re.search(words, text), path
        assert not re.search(blocks, text, re.MULTILINE), path
