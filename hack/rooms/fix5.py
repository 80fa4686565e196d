import pathlib, re

from edits import sub

P = pathlib.Path


sub("cli/relayctl/main.py", ('.parents[3] / "manifests/samples/trial"', '.parents[2] / "manifests/samples/trial"'))
p = P("tests/integration/test_demo.py")
t = p.read_text()
t = re.sub(
    r'(@pytest.mark.parametrize\(\n?\s*\("program".*?\n\))',
    lambda m: m[1].replace('"relayer"', '"pocket_relayer"').replace('"miner"', '"pocket_miner"'),
    t,
    flags=re.S,
)
p.write_text(t)
sub(
    "workloads/miner/pocket_miner/console/__main__.py",
    (
        "a look at the ledger from inside a miner's pod; `relayctl` has the same commands.",
        "inspect the ledger from inside a miner's pod, as `relayctl` does.",
    ),
)
