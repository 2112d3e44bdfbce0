"""Captions use params that their rules have; Jinja would print nothing for others."""

import re
from pathlib import Path

import pytest

WORKFLOW = Path(__file__).parents[3] / "workflow"
RULE = re.compile(r"^ *rule (\w+):\n(.*?)(?=^ *rule |\Z)", re.M | re.S)
RULES = {
    name: text
    for path in sorted((WORKFLOW / "rules").glob("*.smk"))
    for name, text in RULE.findall(path.read_text())
}
CAPTIONS = [
    (rule, caption)
    for rule, text in RULES.items()
    for caption in sorted(set(re.findall(r"report/(\w+)\.rst", text)))
]


@pytest.mark.parametrize(("rule", "caption"), CAPTIONS)
def test_captions_use_params_of_their_rule(rule, caption):
    used = re.findall(r"snakemake\.params\.(\w+)", (WORKFLOW / f"report/{caption}.rst").read_text())
    _, _, params = RULES[rule].partition("params:\n")
    assert set(used) <= set(re.findall(r"^ +(\w+)=", params, re.M))
