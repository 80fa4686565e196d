"""The optional accelerator gives the same bytes as libsecp256k1 and as the slow implementation, or is not used."""

import os
import random
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import slow_curve as slow
from corpus import load as corpus
from corpus import unhex
from example_counts import examples
from pocket.errors import InvalidPoint, InvalidSignature, PocketError
from pocket.protocol.crypto import curve, linear_combination
from pocket.protocol.crypto.hashing import hash_to_point
from pocket.protocol.crypto.linear_combination import (
    BASE,
    EARNED_BY,
    EARNED_FROM_ANOTHER_BY,
    Accelerator,
    load,
    plain,
)
from pocket.protocol.crypto.ring import decode_ring_signature, sign_ring, verify_ring_equation, verify_ring_signature
from pocket.runtime.version import VERSION
from world import key

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "native"
SITE_PACKAGES = sysconfig.get_path("purelib")
EDGES = [0, 1, 2, 127, 128, 129, 255, 256, 2**127, 2**128 - 1, 2**128, slow.N - 1, slow.N, slow.N + 1, 2**256 - 1]
SCALARS = st.one_of(st.sampled_from(EDGES), st.integers(0, 2**256 - 1))
LAMBDA = 0x5363AD4CC05C30E0A5261C028812645A122E22EA20816678DF02967C1B23BD72

pytestmark = pytest.mark.processes
if shutil.which("cc") is None and not os.environ.get("CI"):
    pytest.skip("no C compiler", allow_module_level=True)


def build(folder, change=None):
    """Build a library from the source, or quickly from a changed copy."""
    copy = folder / "accelerator"
    shutil.copytree(SOURCE, copy)
    file = copy / "combine.c"
    if change is not None:
        file.write_text(change(file.read_text()))
    out = folder / "library.so"
    subprocess.run(
        ["cc", "-O2" if change is None else "-O0", "-std=gnu11", "-fPIC", "-shared", "-o", out, "combine.c"],
        cwd=copy,
        check=True,
        timeout=120,
    )
    return out


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return build(tmp_path_factory.mktemp("built"))


@pytest.fixture
def accelerator(library):
    return Accelerator(library)


def point(scalar):
    return curve.decode_point(curve.encode_point(curve.multiply_base(scalar)))


def with_tables(accelerator, *points, signatures=EARNED_BY):
    for _ in range(signatures):
        accelerator.promote(p.encoded for p in points)
    return accelerator


@pytest.fixture(scope="module")
def sums(library):
    """Of one library with tables for seven points, their opposites and their images under the endomorphism."""
    chance = random.Random(5)
    scalars = [chance.randrange(1, slow.N) for _ in range(7)]
    rows = [*scalars, *(slow.N - s for s in scalars), *(s * LAMBDA % slow.N for s in scalars), 1, slow.N - 1]
    points = {s: point(s) for s in rows}
    return with_tables(Accelerator(library), *points.values()), points


@given(st.data(), SCALARS, SCALARS)
@settings(max_examples=examples(100))
def test_sums_equal_those_of_libsecp256k1_edges_opposites_and_endomorphism_included(sums, data, a, b):
    accelerator, points = sums
    first, second = (data.draw(st.sampled_from(sorted(points))) for _ in "12")
    expected = plain(points[first], a, points[second], b)
    assert accelerator.linear_combination(points[first], a, points[second], b) == expected
    assert expected == curve.encode_point(curve.multiply_base((a * first + b * second) % slow.N))
    assert accelerator.linear_combination(BASE, a, points[second], b) == plain(BASE, a, points[second], b)


@given(st.data(), SCALARS, SCALARS)
@settings(max_examples=examples(100))
def test_both_sums_of_a_step_equal_those_of_libsecp256k1_with_equal_and_opposite_points_included(sums, data, s, c):
    accelerator, points = sums
    member, hashed, image = (points[data.draw(st.sampled_from(sorted(points)))] for _ in "123")
    expected = plain(BASE, s, member, c) + plain(hashed, s, image, c)
    assert accelerator.ring_sums(member, hashed, image, s, c) == expected


@given(SCALARS, SCALARS, st.integers(1, slow.N - 1))
@settings(max_examples=examples(10))
def test_sums_equal_those_of_the_slow_implementation(library, a, b, secret):
    accelerator = with_tables(Accelerator(library), point(secret))
    found = accelerator.linear_combination(BASE, a, point(secret), b)
    expected = slow.add(slow.multiply(a, slow.G), slow.multiply(b, slow.multiply(secret, slow.G)))
    assert found == slow.encode(expected)


def test_what_adds_up_to_infinity_is_encoded_as_the_reference_has_it(sums):
    accelerator, points = sums
    first = next(iter(points))
    assert accelerator.linear_combination(points[first], 5, points[slow.N - first], 5) == curve.INFINITY_ENCODING
    assert accelerator.linear_combination(points[first], 0, points[first], slow.N) == curve.INFINITY_ENCODING


@pytest.mark.parametrize("case", corpus("ring_signatures")["signatures"], ids=lambda case: case["id"])
def test_every_ring_signature_of_the_reference_is_judged_alike_with_tables_for_all_its_points(
    library, monkeypatch, case
):
    monkeypatch.setattr(linear_combination, "accelerator", None)

    def judged():
        try:
            return verify_ring_equation(unhex(case["message_hash"]), decode_ring_signature(unhex(case["signature"])))
        except PocketError as error:
            return type(error)

    without = judged()
    monkeypatch.setattr(linear_combination, "accelerator", accelerator := Accelerator(library))
    if without in (True, False):
        signature = decode_ring_signature(unhex(case["signature"]))
        members = [curve.decode_point(member) for member in signature.members]
        with_tables(accelerator, signature.key_image, *members, *(hash_to_point(m.encoded) for m in members))
    assert judged() == without


def signed(message, size=2):
    members = [key(f"ring {n}").public_key for n in range(size)]
    encoded = sign_ring(message, members, key("ring 0").scalar, random.Random(3).randbytes).encode()
    return encoded, frozenset(members)


def test_points_earn_a_table_by_signatures_that_held_and_no_stranger_gets_one(accelerator, monkeypatch):
    monkeypatch.setattr(linear_combination, "accelerator", accelerator)
    encoded, members = signed(b"m" * 32)
    for _ in range(20):
        with pytest.raises(InvalidSignature):
            verify_ring_signature(b"other".ljust(32), encoded, members)
    assert len(accelerator) == 0
    for made in range(EARNED_BY):
        assert len(accelerator) == 0, made
        verify_ring_signature(b"m" * 32, encoded, members)
    assert len(accelerator) == 5
    verify_ring_signature(b"m" * 32, encoded, members)
    with pytest.raises(InvalidSignature):
        verify_ring_signature(b"other".ljust(32), encoded, members)


def test_the_least_recently_used_tables_go_first(library):
    accelerator = Accelerator(library, tables=2)
    one, two, three = (point(n) for n in (11, 12, 13))
    with_tables(accelerator, one)
    with_tables(accelerator, two)
    assert accelerator.linear_combination(BASE, 1, one, 1) is not None
    with_tables(accelerator, three, signatures=EARNED_FROM_ANOTHER_BY)
    assert len(accelerator) == 2
    assert accelerator.linear_combination(BASE, 1, two, 1) is None
    assert accelerator.linear_combination(BASE, 1, one, 1) is not None


def test_points_of_a_few_signatures_earn_no_tables_that_cost_more_than_they_save(library):
    accelerator = Accelerator(library)
    with_tables(accelerator, *(point(n) for n in range(11, 111)), signatures=10)
    assert len(accelerator) == 0


def test_points_that_take_turns_do_not_replace_each_others_tables(library):
    accelerator = Accelerator(library, tables=2)
    points = [point(n) for n in range(11, 17)]
    for _ in range(50):
        for one in points:
            with_tables(accelerator, one, signatures=1)
    assert [accelerator.linear_combination(BASE, 1, one, 1) is not None for one in points] == [True] * 2 + [False] * 4


@pytest.mark.parametrize("encoded", [b"", b"\x02", b"\x04" + bytes(32), b"\x02" + b"\xff" * 32, b"\x02" + bytes(34)])
def test_what_is_no_point_gets_no_table(accelerator, encoded):
    with pytest.raises(InvalidPoint):
        accelerator._table(encoded)


def test_it_is_off_where_it_is_switched_off_missing_or_damaged(library, tmp_path):
    assert load({}, library) is not None
    assert load({"RELAY_ACCELERATOR": "off"}, library) is None
    assert load({"RELAY_ACCELERATOR_TABLES": "many"}, library) is None
    assert load({}, None) is None
    assert load({}, tmp_path / "nothing.so") is None
    (tmp_path / "damaged.so").write_bytes(b"\x7fELF" + bytes(100))
    assert load({}, tmp_path / "damaged.so") is None


WRONG = [
    ("secp256k1_fe_is_odd(&point->y) ? 3 : 2", "secp256k1_fe_is_odd(&point->y) ? 2 : 3"),
    ("carry = digit > DIGITS", "carry = 0 && digit > DIGITS"),
    ("!negative);", "negative);"),
    ("&secp256k1_const_beta);\n    secp256k1_gej_add_var", "&high.z);\n    secp256k1_gej_add_var"),
    ("secp256k1_fe_negate(&y, &x, 1)", "secp256k1_fe_negate(&y, &a->y, 2)"),
    ("encode(out + 33, &points[1])", "encode(out + 33, &points[0])"),
]


@pytest.mark.parametrize(("right", "wrong"), WRONG, ids=[row[0][:20] for row in WRONG])
def test_a_library_that_computes_something_else_is_not_used(tmp_path, right, wrong, captured_logs):
    def broken(text):
        assert text.count(right) == 1
        # Without digits beyond the table: a wrong library must be wrong, not crash.
        bounded = "int digit = (bytes[31 - w] + carry) & 0x17f;"
        return text.replace(right, wrong).replace("int digit = bytes[31 - w] + carry;", bounded)

    assert load({}, build(tmp_path, broken)) is None
    assert "is disabled" in str(captured_logs)


@pytest.mark.long
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_it_is_clean_under_sanitizers_with_threads_that_share_tables(tmp_path, sanitizer):
    program = tmp_path / "check"
    command = ["cc", "-O1", "-g", "-std=gnu11", "-Wno-unused-function", f"-fsanitize={sanitizer}", "-pthread"]
    subprocess.run(
        [*command, "-fno-sanitize-recover=all", "-o", program, "check.c"], cwd=SOURCE, check=True, timeout=180
    )
    chance = random.Random(8)
    rows, expected = [], []
    for number in range(60):
        first, second = chance.randrange(1, slow.N), chance.randrange(1, slow.N)
        a, b = (chance.choice([chance.choice(EDGES), chance.getrandbits(256)]) for _ in "12")
        if number % 10 == 0:
            second, b = slow.N - first, a
        rows.append(f"{point(first).encoded.hex()} {a:064x} {point(second).encoded.hex()} {b:064x}")
        expected.append(plain(point(first), a, point(second), b).hex())
    # setarch: ThreadSanitizer needs its own layout of the address space.
    ran = subprocess.run(
        ["setarch", "-R", program], input="\n".join(rows), capture_output=True, text=True, timeout=180, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.split() == expected


def test_the_build_says_when_there_is_no_compiler_and_does_nothing_twice(tmp_path):
    script, out = ROOT / "native/build_libraries", tmp_path / "out"
    quiet = {"PATH": os.environ["PATH"], "CC": "cc"}
    first = subprocess.run([script, out], env=quiet, capture_output=True, text=True, check=True)
    assert "Built the accelerators" in first.stdout
    assert {file.name for file in out.rglob("*.so")} == {"combine.so", "trie.so"}
    again = subprocess.run([script, out], env=quiet, capture_output=True, text=True, check=True)
    assert again.stdout == ""
    bare = tmp_path / "bin"
    bare.mkdir()
    for tool in ("dirname", "sha256sum", "cat", "sh", "mkdir"):
        (bare / tool).symlink_to(shutil.which(tool))
    bare_environment = {"PATH": str(bare)}
    none = subprocess.run(
        [script, tmp_path / "none"], env=bare_environment, capture_output=True, text=True, check=False
    )
    assert none.returncode == 3
    assert "No C compiler" in none.stdout
    assert not (tmp_path / "none").exists()
    checkout = [ROOT / "scripts/build_accelerator", tmp_path / "none"]
    assert subprocess.run(checkout, env=bare_environment, capture_output=True, check=False).returncode == 0


def test_the_wheel_holds_the_libraries_and_they_are_used_from_it(tmp_path):
    uv = Path(sys.executable).with_name("uv")
    build = [uv, "build", "--quiet", "--offline", "--no-build-isolation", "--python", sys.executable, "--wheel"]
    subprocess.run([*build, ROOT / "native", "--out-dir", tmp_path], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith("pocket_relay_mining_accelerator-")
    assert "-py3-none-linux_" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "from pocket.protocol.acceleration import native_library\n"
        "from pocket.protocol.crypto.linear_combination import accelerator\n"
        "from pocket.protocol.smst.bulk import native\n"
        "print(native_library('combine'), accelerator is not None, native is not None)\n"
    )
    library = f"{tmp_path}/site/pocket_accelerator/combine.so"
    for site, expected in (("site", f"{library} True True\n"), ("none", "None False False\n")):
        environment = {"PYTHONPATH": f"{tmp_path / site}:{ROOT / 'core'}:{SITE_PACKAGES}"}
        command = [sys.executable, "-S", "-c", code]
        shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        assert shown == expected


def test_both_distributions_have_one_version():
    projects = [tomllib.loads((ROOT / folder / "pyproject.toml").read_text()) for folder in (".", "native")]
    extra = projects[0]["project"]["optional-dependencies"]["accelerator"]
    assert extra == [f"{projects[1]['project']['name']}=={VERSION}"]
    assert projects[1]["project"]["version"] == VERSION
