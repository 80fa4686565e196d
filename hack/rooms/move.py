"""Moves modules by moves.txt: git mv, imports rewritten by AST positions, dotted strings and paths rewritten."""

import pathlib as _p

HERE = str(_p.Path(__file__).parent)
import ast, collections, pathlib, re, subprocess, sys

OLD_ROOTS = {
    "pocket_api": "api/src",
    "shannon": "workloads/shannon/src",
    "ledger": "workloads/ledger/src",
    "coordination": "workloads/coordination/src",
    "relayer": "workloads/relayer/src",
    "miner": "workloads/miner/src",
    "localnet": "workloads/localnet/src",
    "pocket_operator": "operator/src",
    "relayctl": "cli/src",
}
NEW_ROOTS = {
    "pocket": "core",
    "pocket_miner": "workloads/miner",
    "pocket_relayer": "workloads/relayer",
    "pocket_localnet": "workloads/localnet",
    "pocket_operator": "operator",
    "relayctl": "cli",
}
MV = dict(l.split() for l in open(HERE + "/moves.txt") if l.strip() and l[0] != "#")
P = pathlib.Path
TR = set(subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout.split("\n"))


def sh(*a):
    subprocess.run(a, check=True)


files = {}
for r, p in OLD_ROOTS.items():
    for f in P(p).joinpath(r).rglob("*"):
        if f.is_file() and str(f) in TR:
            files[f] = (r, p)


def modname(f, p):
    parts = list(f.relative_to(p).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts)


mods = {}
newpath = {}
unmapped = []
for f, (r, p) in files.items():
    if f.suffix == ".py":
        m = modname(f, p)
        if m.startswith("shannon.pb."):
            MV[m] = m.replace("shannon.pb", "pocket.protocol.pb")
        if m not in MV:
            unmapped.append(m)
            continue
        mods[m] = f
        if m == "shannon.rings":
            dest = P("core/pocket/protocol/rings.py")
        elif f.name == "__init__.py":
            if m in ("ledger", "coordination", "pocket_api") or True:
                d = MV[m].split(".")
                dest = P(NEW_ROOTS[d[0]]) / P(*d) / "__init__.py"
        else:
            d = MV[m].split(".")
            dest = P(NEW_ROOTS[d[0]]) / P(*d).with_suffix(".py")
        newpath[f] = dest
    else:
        m = modname(f, p)
        parent = m.rsplit(".", 1)[0]
        if f.name == "py.typed":
            d = [MV[r].split(".")[0]]
            dest = P(NEW_ROOTS[d[0]]) / d[0] / "py.typed"
        else:
            d = MV[parent].split(".")
            dest = P(NEW_ROOTS[d[0]]) / P(*d) / f.name
        newpath[f] = dest
if unmapped:
    sys.exit("unmapped: " + "\n".join(unmapped))


def split_target(m):
    return MV[m]


PKGS = {m for m in mods if mods[m].name == "__init__.py"}


def rewrite(text, filename):
    tree = ast.parse(text)
    lines = text.splitlines(keepends=True)
    starts = [0]
    for l in lines:
        starts.append(starts[-1] + len(l.encode()))
    data = text.encode()
    edits = []
    renames = {}  # local name -> new local name
    dotted = {}
    for n in ast.walk(tree):
        if isinstance(n, ast.ImportFrom) and n.level == 0 and n.module and n.module.split(".")[0] in OLD_ROOTS:
            groups = collections.OrderedDict()
            for a in n.names:
                full = n.module + "." + a.name
                if full in mods:
                    new = MV[full]
                    par, leaf = new.rsplit(".", 1)
                    asname = a.asname
                    if leaf != a.name and not asname:
                        renames[a.name] = leaf
                    groups.setdefault(par, []).append(leaf + (f" as {asname}" if asname else ""))
                elif n.module in mods:
                    groups.setdefault(MV[n.module], []).append(a.name + (f" as {a.asname}" if a.asname else ""))
                else:
                    raise SystemExit(f"{filename}: {full}")
            s = starts[n.lineno - 1] + n.col_offset
            e = starts[n.end_lineno - 1] + n.end_col_offset
            ind = " " * n.col_offset
            out = []
            for mod, names in groups.items():
                line = f"from {mod} import " + ", ".join(names)
                if len(ind + line) > 120:
                    line = f"from {mod} import (\n" + "".join(f"{ind}    {x},\n" for x in names) + f"{ind})"
                out.append(line)
            edits.append((s, e, ("\n" + ind).join(out)))
        elif isinstance(n, ast.Import):
            for a in n.names:
                if a.name.split(".")[0] in OLD_ROOTS:
                    assert len(n.names) == 1, (filename, ast.dump(n))
                    new = MV[a.name]
                    s = starts[n.lineno - 1] + n.col_offset
                    e = starts[n.end_lineno - 1] + n.end_col_offset
                    edits.append((s, e, f"import {new}" + (f" as {a.asname}" if a.asname else "")))
                    if not a.asname:
                        dotted[a.name] = new

    def fulldotted(n):
        if isinstance(n, ast.Attribute):
            b = fulldotted(n.value)
            return b and b + "." + n.attr
        return n.id if isinstance(n, ast.Name) else None

    assigned = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)} | {
        a.arg for a in ast.walk(tree) if isinstance(a, ast.arg)
    }
    for n in ast.walk(tree):
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load) and n.id in renames:
            if n.id in assigned:
                print("AMBIGUOUS", filename, n.id, n.lineno)
            s = starts[n.lineno - 1] + n.col_offset
            edits.append((s, s + len(n.id), renames[n.id]))
        if isinstance(n, ast.Attribute) and dotted:
            d = fulldotted(n)
            if d in dotted:
                s = starts[n.lineno - 1] + n.col_offset
                e = starts[n.end_lineno - 1] + n.end_col_offset
                edits.append((s, e, dotted[d]))
        if isinstance(n, ast.Constant) and isinstance(n.value, str) and not "\n" in n.value:
            s = starts[n.lineno - 1] + n.col_offset
            e = starts[n.end_lineno - 1] + n.end_col_offset
            raw = data[s:e].decode()
            # monkeypatch-like dotted targets
            v = n.value
            if re.fullmatch(r"[a-z_]+(\.\w+)+", v) and v.split(".")[0] in OLD_ROOTS:
                parts = v.split(".")
                for k in range(len(parts), 1, -1):
                    if ".".join(parts[:k]) in mods:
                        nv = MV[".".join(parts[:k])] + "".join("." + x for x in parts[k:])
                        edits.append((s, e, raw.replace(v, nv)))
                        break
    for s, e, new in sorted(set(edits), reverse=True):
        data = data[:s] + new.encode() + data[e:]
    return data.decode()


m = P("scripts/mutants.py")
mt = m.read_text()
consts = dict(re.findall(r'^([A-Z_]+) = "((?:workloads|operator|api|cli)/[^"]*)"$', mt, re.M))
mt = re.sub(r'f"\{([A-Z_]+)\}/([\w/.]+)"', lambda k: f'"{consts[k[1]]}/{k[2]}"' if k[1] in consts else k[0], mt)
mt = re.sub(
    r'^([A-Z_]+) = "((?:workloads|operator|api|cli)/[^"]*)"\n',
    lambda k: "" if k[1] in consts and not re.search(r"\b" + k[1] + r"\b", mt.replace(k[0], "")) else k[0],
    mt,
    flags=re.M,
)
m.write_text(mt)
tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout.split("\n")[:-1]
for name in tracked:
    f = P(name)
    if f.suffix in (".py", ".pyi") and f.exists() and not f.name.endswith("_pb2.py"):
        t = f.read_text()
        n = rewrite(t, name)
        if n != t:
            f.write_text(n)
    elif f.name.endswith("_pb2.py"):
        t = f.read_text()
        n = (
            t.replace("shannon.pb", "pocket.protocol.pb")
            .replace("shannon/pb", "pocket/protocol/pb")
            .replace("shannon_dot_pb", "pocket_dot_protocol_dot_pb")
        )
        f.write_text(n)
    elif f.suffix == ".proto":
        t = f.read_text()
        n = t.replace('"shannon/pb/', '"pocket/protocol/pb/')
        f.write_text(n)
# paths in everything else and in strings/comments
oldpaths = {str(f): str(d) for f, d in newpath.items()}
bysuffix = collections.defaultdict(set)
for o, d in oldpaths.items():
    if not o.endswith(".py") or o.endswith("__init__.py"):
        continue
    parts = o.split("/src/", 1)[1].split("/")
    for k in range(len(parts) - 1):
        bysuffix["/".join(parts[k:])].add(d)
TOK = re.compile(r"[\w./-]+\.py\b")


def fixpaths(t):
    def sub(m):
        x = m[0]
        if x in oldpaths:
            return oldpaths[x]
        if x.startswith(("tests/", "scripts/", "benchmarks/")):
            return x
        c = bysuffix.get(x)
        if c and len(c) == 1:
            d = next(iter(c))
            return (
                d
                if x.count("/") < 1
                else d.split("/", 1)[1]
                if d.startswith(("core/", "operator/", "cli/"))
                else d.split("/", 2)[2]
            )
        return x

    return TOK.sub(sub, t)


for name in tracked:
    f = P(name)
    if (
        f.exists()
        and f.suffix in (".py", ".pyi", ".md", ".toml", ".yaml", "", ".txt", ".c")
        and not name.startswith(("docs/decisions", "tests/vectors/data"))
        and f.name not in ("CHANGELOG.md",)
    ):
        try:
            t = f.read_text()
        except UnicodeDecodeError:
            continue
        n = fixpaths(t)

        def imp(m):
            full = m[1] + "." + m[2]
            if full in mods:
                par, leaf = MV[full].rsplit(".", 1)
                return f"from {par} import {leaf}" + ("" if leaf == m[2] else f" as {m[2]}")
            return f"from {MV[m[1]]} import {m[2]}" if m[1] in mods else m[0]

        n = re.sub(r"\bfrom ((?:%s)(?:\.\w+)*) import (\w+)" % "|".join(OLD_ROOTS), imp, n)

        def dotted_sub(m):
            parts = m[0].split(".")
            for k in range(len(parts), 1, -1):
                if ".".join(parts[:k]) in mods:
                    return MV[".".join(parts[:k])] + "".join("." + x for x in parts[k:])
            return m[0]

        n = re.sub(r"(?<![\w./-])(?:shannon|ledger|coordination|pocket_api|pocket_operator)(?:\.\w+)+", dotted_sub, n)
        n = re.sub(r"(?<=`)(?:miner|relayer|localnet|relayctl)(?:\.\w+)+(?=`)", dotted_sub, n)
        if n != t:
            f.write_text(n)
# move
seen = set()
for f, d in sorted(newpath.items()):
    d.parent.mkdir(parents=True, exist_ok=True)
    if d.exists() or d in seen:
        sh("git", "rm", "-qf", str(f))
        continue
    seen.add(d)
    sh("git", "mv", str(f), str(d))
for d in sorted({x.parent for x in newpath.values()}):
    top = d
    while str(top) not in NEW_ROOTS.values() and str(top) != ".":
        i = top / "__init__.py"
        if not i.exists():
            i.write_text('"""TODO: one line."""\n')
        top = top.parent
