"""The examples for clients: each signs a relay and verifies the response, from the documented bytes alone."""

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from relays import relaying
from world import address, key

pytestmark = [pytest.mark.redis, pytest.mark.processes, pytest.mark.timeout(170)]
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
COMMANDS = {
    "python": [sys.executable, str(EXAMPLES / "python/relay.py")],
    "javascript": ["node", str(EXAMPLES / "javascript/relay.mjs")],
    "go": ["go", "run", "."],
}


async def described(node, application):
    """Return the session as `relayctl relay session` prints it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "relayctl.main", "relay", "session",
        "--grpc", node, "--app", application, "--service", "eth",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await process.communicate()
    return json.loads(output)


async def run(language, session, url):
    process = await asyncio.create_subprocess_exec(
        *COMMANDS[language], str(session), url, "eth_chainId",
        cwd=EXAMPLES / language, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "GATEWAY_KEY": f"{key('gateway').scalar:064x}"},
    )  # fmt: skip
    output, _ = await process.communicate()
    return process.returncode, output.decode()


@pytest.mark.parametrize("language", ["python", "go", pytest.param("javascript", marks=pytest.mark.long)])
async def test_an_example_signs_a_relay_and_accepts_only_the_suppliers_signature(redis, tmp_path, language):
    if shutil.which(COMMANDS[language][0]) is None:
        pytest.skip(f"{COMMANDS[language][0]} is not installed")
    async with relaying(redis, tmp_path) as relayer:
        session = await described(relayer.node[0], relayer.world.application("eth"))
        session["suppliers"] = {address("alice"): session["suppliers"][address("alice")]}
        file = tmp_path / "session.json"
        file.write_text(json.dumps(session))
        code, output = await run(language, file, relayer.url)
        assert code == 0, output
        assert output.splitlines()[0] == f"status 200, signed by {address('alice')}"
        assert json.loads(relayer.backend.requests[-1][3])["method"] == "eth_chainId"
        assert len(await relayer.leaves()) == 1

        session["suppliers"][address("alice")]["public_key"] = key("bob").public_key.hex()
        file.write_text(json.dumps(session))
        code, output = await run(language, file, relayer.url)
        assert code != 0
        assert "the supplier's signature is invalid" in output

        session["header"]["session_id"] = "0" * 64
        file.write_text(json.dumps(session))
        code, output = await run(language, file, relayer.url)
        assert code == 1
        assert 'status 403: {"error"' in output
        assert '"code": "session_mismatch"' in output
        assert not any(row.startswith(("Traceback", "    at ")) for row in output.splitlines())
