import pathlib, re

P = pathlib.Path


def sub(path, *pairs):
    p = P(path)
    t = p.read_text()
    for a, b in pairs:
        if a not in t:
            print("MISSING in", path, ":", a[:80])
            continue
        t = t.replace(a, b)
    p.write_text(t)


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
    "tests/integration/test_miner_outages.py",
    (
        '    root = Path(__file__).parents[2] / "workloads"\n    folders = [root / "miner/src/miner", *(root / "shannon/src/shannon" / name for name in ("transactions", "claims"))]',
        '    root = Path(__file__).parents[2]\n    protocol = root / "core/pocket/protocol"\n    folders = [root / "workloads/miner/pocket_miner", protocol / "transactions", protocol / "claims"]',
    ),
    ('"ChainNotes", "Endpoints("', '"ChainDiagnostics", "PublicUrlChecker("'),
)
sub(
    "workloads/miner/pocket_miner/console/__main__.py",
    (
        "a look at the ledger from inside a miner's pod; `relayctl` has the same commands.",
        "inspect the ledger from inside a miner's pod, as `relayctl` does.",
    ),
)
