"""Documents lead to what exists: links, commands with their options, make targets, keys in Redis."""

import functools
import re
import shlex
from itertools import zip_longest
from pathlib import Path
from pkgutil import resolve_name

import click
import pytest
import yaml

from docs_nav import expanded
from pocket.redis_store.redis_keys import RedisKeys
from pocket_miner.console.__main__ import main as console
from relayctl.k8s.plugin import k8s
from relayctl.main import main as relayctl
from sweep_outages import UNAVOIDABLE, outage_table
from sweep_points import HARDENING, Point, between_markers, chosen_points, sweep_columns, sweep_rows, sweep_table

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SOURCES = ["core/pocket", "workloads", "operator", "cli", "scripts"]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
GROUPS = {"relayctl": relayctl, "python -m pocket_miner.console": console, "kubectl pocket": k8s}


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name):
    page = ROOT / name
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{name} links to {target}"


def cited_documents(text):
    """Names of Markdown files in a text, without the addresses of web pages."""
    return set(re.findall(r"(?<![\w./=-])[A-Za-z0-9_./-]*[A-Za-z0-9_-]+\.md\b", re.sub(r"\w+://\S+", "", text)))


def exists(name, page):
    return any((folder / name).exists() for folder in (ROOT, page.parent, ROOT / "docs", ROOT / "docs/protocol"))


def test_every_cited_document_is_in_the_repository():
    sources = [path for root in SOURCES for path in sorted((ROOT / root).rglob("*.py"))]
    assert len(sources) > 250
    cited = [(path, name) for path in [*sources, *PAGES] for name in cited_documents(path.read_text())]
    assert len(cited) > 100
    assert [f"{path.relative_to(ROOT)} cites {name}" for path, name in cited if not exists(name, path)] == []


def test_an_absent_document_would_be_noticed():
    (name,) = cited_documents("The rules are elsewhere (docs/protocol/absent.md, section 3).")
    assert not exists(name, ROOT / "core/pocket/errors.py")
    assert cited_documents("see https://example.org/docs/page.md") == set()


def test_the_protocol_index_lists_every_document():
    folder = ROOT / "docs/protocol"
    index = (folder / "README.md").read_text()
    names = sorted(path.name for path in folder.glob("*.md") if path.name != "README.md")
    assert len(names) == 7
    assert [name for name in names if f"]({name})" not in index] == []


def commands(text):
    """(group, words) of every command line of ours: in blocks, and between backticks."""
    blocks = "\n".join(re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    for line in [*blocks.splitlines(), *(row.replace(r"\|", "|") for row in re.findall(r"`([^`\n]+)`", text))]:
        for start, group in GROUPS.items():
            before, found, rest = line.partition(f"{start} ")
            if found and not before.endswith(("'", '"')) and not rest.startswith(("in ", "and ")):
                yield group, shlex.split(rest.split(" #")[0].split(" <")[0].split(" >")[0], comments=True)


def problem(group, words):
    """Why a command line could not be meant, or None."""
    command = group
    for place, word in enumerate(words):
        if isinstance(command, click.Group):
            if word.startswith("-"):
                return None
            if word not in command.commands:
                return f"no command {word}"
            command = command.commands[word]
            continue
        options = {text: row for row in command.params for text in (*row.opts, *row.secondary_opts)}
        for given, after in zip_longest(words[place:], words[place + 1 :], fillvalue=""):
            if not given.startswith("-") or given == "-":
                continue
            name, sign, value = given.partition("=")
            if name not in options:
                return f"no option {given}"
            kind = options[name].type
            named = set((value if sign else after).split("|"))  # one of them, or all
            if isinstance(kind, click.Choice) and not named <= set(kind.choices):
                return f"{name} is one of {kind.choices}"
            if isinstance(kind, click.Choice) and len(named) > 1 and named != set(kind.choices):
                return f"{name} has {kind.choices}"
        return None
    return None


@pytest.mark.parametrize("name", NAMES)
def test_every_command_exists_with_its_options(name):
    text = (ROOT / name).read_text()
    assert [(words, found) for group, words in commands(text) if (found := problem(group, words))] == []


def test_a_wrong_command_or_option_would_be_noticed():
    for line in ("relayctl inspect nothing", "relayctl ledger export --nothing", "kubectl pocket nothing",
                 "kubectl pocket earnings --by year", r"kubectl pocket earnings --by session\|day"):  # fmt: skip
        ((group, words),) = commands(f"`{line}`")
        assert problem(group, words)
    assert not list(commands("`relayctl`"))


@pytest.mark.parametrize("name", NAMES)
def test_a_command_for_an_object_in_a_namespace_names_the_namespace(name):
    blocks = re.findall(r"^```\w*\n(.*?)^```", (ROOT / name).read_text(), re.DOTALL | re.MULTILINE)
    commands = re.findall(r"^kubectl (.*)$", "\n".join(blocks).replace("\\\n", ""), re.MULTILINE)
    elsewhere = r" -A\b| --all-namespaces| -k |^pocket |^(create|annotate|delete) namespace "
    assert [c for c in commands if not re.search(rf"-n [\w<]|{elsewhere}", c)] == []


def test_every_make_target_that_is_named_exists():
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for page in PAGES for target in re.findall(r"`make ([a-z0-9-]+)", page.read_text())}
    assert named
    assert named <= targets


def test_the_page_of_redis_has_every_key():
    text = (ROOT / "docs/redis.md").read_text()
    keys, kinds = RedisKeys("p"), set()
    for name in dir(RedisKeys):
        if name.startswith("_") or name in ("prefix", "spent"):
            continue
        value = getattr(keys, name)
        made = value if isinstance(value, str) else value(*["x"] * (value.__code__.co_argcount - 1))
        kinds.add(made.removeprefix("p:").partition(":")[0])
    assert len(kinds) > 15
    missing = {kind for kind in kinds if f"`{kind}:" not in text and f"`{kind}`" not in text}
    assert not missing


def test_the_tables_of_faults_and_outages_are_of_todays_sweep():
    lines = between_markers(HARDENING, "sweep").splitlines()
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert head == ["boundary", "fault", *sweep_columns()]
    assert [tuple(row[:2]) for row in rows] == sweep_rows()
    assert not [row for row in rows if "lost" in "".join(row[2:])]
    assert between_markers(HARDENING, "outages") == outage_table(UNAVOIDABLE)


def test_a_sweep_of_some_kinds_renews_their_rows_alone():
    former = between_markers(HARDENING, "sweep")
    every = [Point(0, boundary, kind, 1, 9) for boundary, kind in sweep_rows()]
    chosen = chosen_points(every, "hangs,peers")
    assert {point.boundary for point in chosen if point.kind != "hangs"} == {"peers"}
    rows = zip(former.splitlines(), sweep_table(chosen, [], former).splitlines(), strict=True)
    renewed = [new for old, new in rows if old != new]
    assert [row.split(" | ")[:2] for row in renewed][:2] == [["| chain", "hangs"], ["| rpc", "hangs"]]
    assert all(row.count("| 1 |") == 1 for row in renewed)
    with pytest.raises(ValueError, match="sqlight"):
        chosen_points(every, "sqlight")


def navigation(entries):
    """Every page that a navigation names."""
    for entry in entries:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        yield from navigation(value) if isinstance(value, list) else [value]


def test_the_site_shows_every_page_once():
    text = (ROOT / "mkdocs.yml").read_text().replace("!!python/name:", "")
    shown = list(navigation(expanded(yaml.safe_load(text)["nav"], ROOT / "docs")))
    assert sorted(shown) == sorted(str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md"))


LISTS = "FIX|REG|CON|SES|VAL|PUB|NEW|MET|TXN|RLY|CLM|PRF|MTR|HLT|BCK|TRN|KEY|BLK|MON|SEED|CLI|CAC|TX"
ABSENT = re.compile(
    rf"\b(?:{LISTS})-[0-9]+|feature inventory|the known implementation|design card"
    r"|\b(?:design|features|faults|house|kubernetes|profile|anchors)\.md\b"
)


def foreign_citations(text):
    """Ids of lists, and documents, that are not in the repository."""
    return ABSENT.findall(text)


@pytest.mark.parametrize("name", [*NAMES, "CHANGELOG.md", "SECURITY.md"])
def test_no_page_cites_a_list_or_a_document_that_is_not_here(name):
    assert foreign_citations((ROOT / name).read_text()) == []


def test_a_citation_of_something_absent_would_be_noticed():
    assert foreign_citations("as FIX-40 and the known implementation in design.md") == [
        "FIX-40", "the known implementation", "design.md",
    ]  # fmt: skip


OLD_NAMES = {
    "AllWell",
    "ClaimsSettle",
    "HeldNamespaces",
    "NodesDiffer",
    "PocketChainNodesDiffer",
    "PocketForeignClaim",
    "RefusedByAPI",
    "SealBroken",
    "SealForAnother",
    "SealKeyUnknown",
    "StakedBeyond",
    "SuppliersWait",
    "pocket_miner_foreign_claims_total",
    "pocket_miner_relays_followed_total",
    "pocket_operator_leads",
    "pocket_relayer_relays_waiting",
    "v1alpha1",
}
ABOUT_THE_RENAMING = {"docs/decisions/0024-v1beta1.md"}


@pytest.mark.parametrize("name", sorted(set(NAMES) - ABOUT_THE_RENAMING))
def test_no_page_uses_a_name_from_before_v1beta1(name):
    text = (ROOT / name).read_text()
    assert [word for word in sorted(OLD_NAMES) if re.search(rf"\b{word}\b", text)] == []


@functools.cache
def module_names():
    """Dotted names of the product's modules and packages."""
    folders = ("core", "operator", "workloads/relayer", "workloads/miner", "workloads/localnet", "cli")
    paths = [(path, ROOT / folder) for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return [".".join(path.relative_to(at).with_suffix("").parts).removesuffix(".__init__") for path, at in paths]


def test_every_module_that_a_page_names_exists():
    modules = set(module_names())
    missing = []
    for name in NAMES:
        for dotted in re.findall(r"`((?:pocket|pocket_\w+|relayctl)(?:\.[a-z_]\w*)+)", (ROOT / name).read_text()):
            if dotted not in modules and dotted.rpartition(".")[0] not in modules:
                missing.append(f"{name}: {dotted}")
    assert missing == []


def names_in_code(text):
    """Dotted names below a package of the product in a page. Messages of the chain are named alike."""
    packages = {name for name in module_names() if name.count(".") == 1}
    names = re.findall(r"`((?:pocket|pocket_\w+|relayctl)(?:\.\w+){2,})`", text)
    return [name for name in names if ".".join(name.split(".")[:2]) in packages]


def is_in_code(dotted):
    """Return True if a dotted name is a module, or leads from one to an attribute."""
    try:
        resolve_name(dotted)
    except (ImportError, AttributeError):
        return False
    return True


def test_every_class_and_function_that_a_page_names_exists():
    dotted = {name for page in PAGES for name in names_in_code(page.read_text())}
    assert len(dotted) > 15
    assert [name for name in sorted(dotted) if not is_in_code(name)] == []
    assert not is_in_code("pocket_relayer.pipeline.pipeline.RelayPipeline.absent")


def test_every_metric_that_a_page_names_exists():
    reference = (ROOT / "docs/reference/metrics.md").read_text()
    known = set(re.findall(r"`(pocket_\w+)`", reference))
    missing = []
    for name in NAMES:
        for metric in re.findall(r"`(pocket_(?:miner|relayer|operator)_\w+)`", (ROOT / name).read_text()):
            if metric not in known and not any(path.name == metric for path in ROOT.glob("*/*")):
                missing.append(f"{name}: {metric}")
    assert missing == []


def test_no_source_file_cites_an_entry_of_a_list_that_is_not_here():
    folders = (
        "benchmarks",
        "cli",
        "core",
        "crds",
        "hack",
        "images",
        "manifests",
        "native",
        "operator",
        "scripts",
        "tests",
        "workloads",
    )
    found = []
    for path in sorted(path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()):
        if path == Path(__file__) or path.suffix not in (".py", ".sh", ".yaml", ".yml", ".c", ".h", ".proto", ""):
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {entry}" for entry in re.findall(rf"\b(?:{LISTS})-[0-9]+\b", text)]
    assert found == []
