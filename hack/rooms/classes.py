"""Renames classes by defining module: tokens in the defining file and in files that import the name from it."""

import pathlib as _p

HERE = str(_p.Path(__file__).parent)
import ast, io, pathlib, re, subprocess, sys, tokenize, collections

P = pathlib.Path
ROOTS = ["core", "operator", "workloads/relayer", "workloads/miner", "workloads/localnet", "cli"]
ren = collections.defaultdict(dict)
for l in open(sys.argv[1] if len(sys.argv) > 1 else HERE + "/classes.txt"):
    if l.strip() and l[0] != "#":
        m, a, b = l.split()
        ren[m][a] = b
files = [
    P(x)
    for x in subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"], capture_output=True, text=True
    ).stdout.split()
    if "_pb2" not in x and P(x).exists()
]


def mod(f):
    for r in ROOTS:
        if str(f).startswith(r + "/"):
            parts = list(f.relative_to(r).with_suffix("").parts)
            if parts[-1] == "__init__":
                parts.pop()
            return ".".join(parts)
    return f.stem


defined = collections.defaultdict(set)
trees = {}
for f in files:
    trees[f] = ast.parse(f.read_text())
    for n in ast.walk(trees[f]):
        if isinstance(n, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            defined[mod(f)].add(n.name)
        elif isinstance(n, (ast.Assign, ast.AnnAssign)):
            for t in n.targets if isinstance(n, ast.Assign) else [n.target]:
                if isinstance(t, ast.Name):
                    defined[mod(f)].add(t.id)
for m, d in ren.items():
    for a in d:
        if a not in defined[m]:
            print("NOT DEFINED", m, a)
# re-export chains: names imported from m in module x and then imported from x (rare) are followed once
namesof = {}
for f in files:
    tree = trees[f]
    me = mod(f)
    names = {}  # local name -> new name
    mods = {}  # module alias -> {old:new}
    conflicts = set()
    for n in ast.walk(tree):
        if isinstance(n, ast.ImportFrom) and n.module and n.level == 0:
            for a in n.names:
                if n.module in ren and a.name in ren[n.module]:
                    if a.asname:
                        names[("import", a.name)] = ren[n.module][a.name]
                    else:
                        names[a.name] = ren[n.module][a.name]
                full = n.module + "." + a.name
                if full in ren:
                    mods[a.asname or a.name] = ren[full]
        elif isinstance(n, ast.Import):
            for a in n.names:
                if a.name in ren:
                    mods[a.asname or a.name] = ren[a.name]
    # test support modules: tests may import classes re-exported; treat plain star none
    if me in ren:
        names.update(ren[me])
    text = f.read_text()
    if not names and not mods:
        new = text
    else:
        toks = list(tokenize.generate_tokens(io.StringIO(text).readline))
        lines = text.splitlines(keepends=True)
        edits = []
        for i, t in enumerate(toks):
            if t.type != tokenize.NAME:
                continue
            prev = toks[i - 1].string if i else ""
            pp = toks[i - 2].string if i > 1 else ""
            if prev == ".":
                base = pp
                # a.b.Old
                for alias, d in mods.items():
                    if alias.split(".")[-1] == base and t.string in d:
                        edits.append((t.start, t.end, d[t.string]))
                continue
            nxt = toks[i + 1].string if i + 1 < len(toks) else ""
            if ("import", t.string) in names and nxt == "as":
                edits.append((t.start, t.end, names["import", t.string]))
            elif t.string in names:
                edits.append((t.start, t.end, names[t.string]))
        anns = [x.annotation for x in ast.walk(tree) if isinstance(x, (ast.arg, ast.AnnAssign)) and x.annotation] + [
            x.returns for x in ast.walk(tree) if isinstance(x, (ast.FunctionDef, ast.AsyncFunctionDef)) and x.returns
        ]
        for an in anns:
            for c in ast.walk(an):
                if isinstance(c, ast.Constant) and isinstance(c.value, str) and c.lineno == c.end_lineno:
                    raw = lines[c.lineno - 1].encode()[c.col_offset : c.end_col_offset].decode()
                    nr = raw
                    if not re.fullmatch(r'["\'][\w.\[\], |]+["\']', raw) or " in " in raw:
                        continue
                    for a, b in names.items():
                        if isinstance(a, str):
                            nr = re.sub(r"(?<![\w.])%s\b" % re.escape(a), b, nr)
                    if nr != raw:
                        co = len(lines[c.lineno - 1].encode()[: c.col_offset].decode())
                        ce = co + len(raw)
                        edits.append(((c.lineno, co), (c.lineno, ce), nr))
        for (l, c), (l2, c2), new in sorted(set(edits), reverse=True):
            s = lines[l - 1]
            lines[l - 1] = s[:c] + new + s[c2:]
        new = "".join(lines)
        # docstrings, comments and quoted annotations: names in backticks or quotes
        for a, b in names.items():
            if isinstance(a, tuple):
                continue
            new = re.sub(r"`%s(?=[`.(])" % re.escape(a), "`" + b, new)
            new = (
                re.sub(r'(?<=[:>\[ |])"%s"(?=[\],):= |])' % re.escape(a), f'"{b}"', new)
                if a[0].isupper() and False
                else new
            )
    for m, d in ren.items():
        for a, b in d.items():
            new = re.sub(r'(["\'`])%s\.%s\b' % (re.escape(m), re.escape(a)), r"\g<1>%s.%s" % (m, b), new)
    if new != text:
        f.write_text(new)
    if not mods or names:
        namesof[str(f)] = {a: b for a, b in names.items() if isinstance(a, str)}
mu = P("scripts/mutants.py")
text = mu.read_text()
tree = ast.parse(text)
data = text.encode()
starts = [0]
for l in text.splitlines(keepends=True):
    starts.append(starts[-1] + len(l.encode()))
edits = []
for n in ast.walk(tree):
    if (
        isinstance(n, ast.Call)
        and getattr(n.func, "id", "") == "Mutant"
        and len(n.args) > 2
        and isinstance(n.args[0], ast.Constant)
    ):
        for arg in n.args[1:3]:
            s = starts[arg.lineno - 1] + arg.col_offset
            e = starts[arg.end_lineno - 1] + arg.end_col_offset
            raw = data[s:e].decode()
            nr = raw
            for a, b in namesof.get(n.args[0].value, {}).items():
                nr = (
                    re.sub(r"\b%s\b(?!\()" % re.escape(a), b, nr)
                    if a.islower()
                    else re.sub(r"\b%s\b" % re.escape(a), b, nr)
                )
            if nr != raw:
                edits.append((s, e, nr))
for s, e, nr in sorted(edits, reverse=True):
    data = data[:s] + nr.encode() + data[e:]
mu.write_text(data.decode())
