"""TLS contexts trust alike under every version of CPython: 3.13 and later refuse authorities without key usage."""

import ssl
from pathlib import Path

from pocket.runtime.http_sessions import http_session
from pocket.runtime.own_authorities import client_context, lenient, system_context

TLS = Path(__file__).parents[1] / "support/tls"
STRICT = ssl.VerifyFlags.VERIFY_X509_STRICT


def test_a_strict_context_becomes_lenient_and_still_verifies():
    context = ssl.create_default_context()
    context.verify_flags |= STRICT
    assert not lenient(context).verify_flags & STRICT
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


async def test_every_client_of_ours_is_lenient():
    async with http_session() as session:
        assert session.connector._ssl is system_context()
    for context in (system_context(), client_context(TLS / "authority.pem")):
        assert not context.verify_flags & STRICT
        assert context.verify_mode is ssl.CERT_REQUIRED
