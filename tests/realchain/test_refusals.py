"""Every refusal that localnet models is the real node's own: the same transaction, the same codespace and code.

Localnet follows the real chain block by block, so both judge the same bytes with the same sessions and windows.
"""

import ast
import inspect
import sys
from dataclasses import dataclass, field, replace

import pytest

import pocket_localnet.ante
import pocket_localnet.handlers
import pocket_localnet.local_chain
from pocket.protocol.crypto.addresses import address_of
from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket.protocol.pb import cosmos_bank_v1beta1_pb2 as bank_pb
from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb
from pocket.protocol.relays.messages import Relay, RelayRequest, RelayResponse, SessionHeader, relay_hash
from pocket.protocol.smst.bulk import LeafContent, LeafSet
from pocket.protocol.smst.digest import leaf_digest, path_of
from pocket.protocol.transactions.batches import MAX_TRANSACTION_BYTES
from pocket.protocol.transactions.build import (
    Message,
    Timestamp,
    TransactionPlan,
    create_claim_message,
    sign_transaction,
    submit_proof_message,
)
from pocket_localnet.tx_rejected import TxRejected
from realchain import SPARE, UNITS
from twin import twin_of

pytestmark = [pytest.mark.realchain, pytest.mark.timeout(240)]

CHEAP = 9 * UNITS
MODULES = (pocket_localnet.ante, pocket_localnet.handlers, pocket_localnet.local_chain)
UNREACHABLE = {
    # The basic validation at broadcast refuses such a message first.
    "session header is nil",
    # A target other than the lowest takes sessions of many thousand relays.
    "failed to validate relay difficulty",
}
SEND = "/cosmos.bank.v1beta1.MsgSend"


@dataclass
class Sites:
    """Places in localnet that refuse, and those of them that did."""

    reached: set[tuple[str, int]] = field(default_factory=set)

    @staticmethod
    def all() -> dict[tuple[str, int, int], str]:
        """First and last line of every refusal by module, with its text."""
        found = {}
        for module in MODULES:
            source = inspect.getsource(module)
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                    name = getattr(node.exc.func, "id", "")
                    if name in ("Refused", "handler_error", "_parse_error"):
                        found[module.__name__, node.lineno, node.end_lineno] = ast.get_source_segment(source, node)
        return found

    def missed(self) -> list[str]:
        """Refusals that nothing reached."""
        return [
            f"{module}:{first} {text}"
            for (module, first, last), text in self.all().items()
            if not any(module == at and first <= line <= last for at, line in self.reached)
            and not any(word in text for word in UNREACHABLE)
        ]


@pytest.fixture
def sites(monkeypatch):
    found, create = Sites(), TxRejected.__init__

    def noting(self, code, codespace, log):
        frame = sys._getframe(1)
        while frame is not None:
            found.reached.add((frame.f_globals.get("__name__", ""), frame.f_lineno))
            frame = frame.f_back
        create(self, code, codespace, log)

    monkeypatch.setattr(TxRejected, "__init__", noting)
    return found


@dataclass
class Maker:
    """Makes transactions of one account.

    Each one has its own timeout.
    """

    key: PrivateKey
    number: int
    block_time_ns: int
    made: int = 0

    @property
    def address(self):
        return address_of(self.key.public_key)

    def raw(self, *messages, key=None, **changes):
        self.made += 1
        stamp = Timestamp.of_nanoseconds(self.block_time_ns + 500_000_000_000 + self.made)
        plan = TransactionPlan(messages, "pocket", self.number, 1_000_000, 1, stamp, memo="")
        return sign_transaction(replace(plan, **changes), key or self.key).raw

    def claim(self, header, count=9, total=None, supplier=None):
        total = count * UNITS if total is None else total
        root = bytes([7] * 32) + total.to_bytes(8, "big") + count.to_bytes(8, "big")
        return create_claim_message(supplier or self.address, header, root)

    def proof(self, header, leaf, supplier=None):
        return submit_proof_message(supplier or self.address, header, proof_of(leaf))

    def send(self, upokt, to):
        message = bank_pb.MsgSend(from_address=self.address, to_address=to)
        message.amount.add(denom="upokt", amount=str(upokt))
        return Message(SEND, message.SerializeToString())


def proof_of(leaf):
    """Return a proof whose only leaf has this value."""
    path = path_of(relay_hash(leaf))
    leaves = LeafSet([(path, leaf_digest(path, leaf, UNITS))])
    return leaves.closest_proof(path, lambda _: LeafContent(leaf, UNITS)).compact().marshal()


def relay(header, supplier, response_header=None, signature=b"s", response_signature=b"s", **changes):
    """Return a mined relay with these parts."""
    request = replace(RelayRequest(header, signature, supplier, b"payload"), **changes)
    response = RelayResponse(response_header or header, response_signature, b"", bytes(32))
    return Relay(request, response).encode()


def at_any_time(make, header, stranger):
    """Refused by the checks before messages run."""
    claim = make.claim(header)
    ahead = Timestamp.of_nanoseconds(make.block_time_ns + 3_600_000_000_000)
    unsigned = tx_pb.TxRaw.FromString(make.raw(claim))
    del unsigned.signatures[:]
    unknown_field = tx_pb.TxRaw.FromString(make.raw(claim)).SerializeToString() + bytes([0x7A, 1, 0x41])
    bad = replace(header, application_address="pokt1nobody")
    return {
        "not a transaction": b"\xff\xff\xff",
        "unknown field": unknown_field,
        "unknown type": make.raw(Message("/pocket.proof.MsgNothing", b"")),
        "message that cannot be read": make.raw(replace(claim, value=b"\xff\xff")),
        "no message": make.raw(),
        "supplier is no address": make.raw(make.claim(header, supplier="pokt1nobody")),
        "malformed header": make.raw(make.claim(bad)),
        "empty proof": make.raw(submit_proof_message(make.address, header, b"")),
        "empty root": make.raw(make.claim(header, 0, 0)),
        "timeout height is over": make.raw(claim, timeout_height=1, unordered=False, timeout=None),
        "timeout is over": make.raw(claim, timeout=Timestamp(1_700_000_000)),
        "timeout is far": make.raw(claim, timeout=ahead),
        "no timeout": make.raw(claim, timeout=None),
        "unordered with a sequence": make.raw(claim, sequence=3),
        "sequence is ahead": make.raw(claim, sequence=9, unordered=False, timeout=None),
        "other chain": make.raw(claim, chain_id="other"),
        "gas for nothing": make.raw(claim, gas_limit=1_000),
        "fee below the price": make.raw(claim, fee_upokt=0),
        "fee above the balance": make.raw(claim, fee_upokt=10**17),
        "long memo": make.raw(claim, memo="m" * 300),
        "no signature": unsigned.SerializeToString(),
        "signed by another": make.raw(claim, key=stranger),
        "unknown account": Maker(stranger, 0, make.block_time_ns).raw(
            create_claim_message(address_of(stranger.public_key), header, make_root())
        ),
        "too large": make.raw(submit_proof_message(make.address, header, bytes(MAX_TRANSACTION_BYTES))),
    }


def make_root():
    return bytes(32) + CHEAP.to_bytes(8, "big") + (9).to_bytes(8, "big")


def in_session(make, header, outsider):
    """Return transactions that the handlers reject before the claim window opens.

    The first one passes the checks.
    """
    return {
        "claim is early": make.raw(make.claim(header)),
        "claim without application": make.raw(make.claim(replace(header, application_address=make.address))),
        "claim for another session": make.raw(make.claim(replace(header, session_id="ab" * 32))),
        "claim of an outsider": outsider.raw(outsider.claim(header)),
        "transfer above the balance": make.raw(make.send(10**17, make.address)),
    }


def in_claim_window(make, header, other, shifted):
    """Claims, and a proof before its time."""
    good = make.raw(make.claim(header))
    return {
        "sum is not count times units": make.raw(make.claim(header, 9, 9 * UNITS + 1)),
        "claim": good,
        "two claims with gas for one": make.raw(make.claim(other, 3), make.claim(other, 4), gas_limit=100_000),
        "claim with another end": make.raw(make.claim(shifted)),
        "proof is early": make.raw(make.proof(header, relay(header, make.address))),
    }


def in_proof_window(make, header, other, third):
    """Proofs that are refused one after the other by what the handler checks next."""
    mine = make.address
    elsewhere = replace(header, service_id="develop-http")
    return {
        "claim is late": make.raw(make.claim(header)),
        "proof cannot be read": make.raw(submit_proof_message(mine, header, b"proof")),
        "leaf is no relay": make.raw(make.proof(header, b"\xff\xff\xff")),
        "leaf has no request": make.raw(
            make.proof(header, Relay(None, RelayResponse(header, b"s", b"", b"")).encode())
        ),
        "leaf has no response": make.raw(
            make.proof(header, Relay(RelayRequest(header, b"s", mine, b""), None).encode())
        ),
        "request without signature": make.raw(make.proof(header, relay(header, mine, signature=b""))),
        "response without signature": make.raw(make.proof(header, relay(header, mine, response_signature=b""))),
        "relay of another supplier": make.raw(make.proof(header, relay(header, mine[:-4] + "aaaa"))),
        "request of another session": make.raw(make.proof(header, relay(elsewhere, mine))),
        "response of another session": make.raw(make.proof(header, relay(header, mine, elsewhere))),
        "proof without claim": make.raw(make.proof(other, relay(other, mine))),
        "proof of a claim with another end": make.raw(make.proof(third, relay(third, mine))),
        "proof is not required": make.raw(make.proof(header, relay(header, mine))),
    }


async def session_header(journey, app, service, height) -> SessionHeader:
    address = address_of(journey.keys[app].public_key)
    return (await journey.chain.session(address, service, height)).header


async def test_localnet_refuses_with_the_codespace_and_code_of_the_node(journey, sites):
    keys, chain = journey.keys, journey.chain
    twin = await twin_of(journey)
    spare, outside = keys[SPARE], keys["supplier5"]
    start = (twin.chain.height - 1) // 10 * 10 + 11
    await twin.follow({}, start)
    header = await session_header(journey, "app2", "develop-websocket", start)
    third = await session_header(journey, "app4", "develop-grpc", start)
    other = await session_header(journey, "app5", "develop-cometbft", start)
    shifted = replace(third, session_end_block_height=third.session_end_block_height - 1)
    now = (await journey.comet.block()).time.nanoseconds
    make = Maker(spare, (await chain.account(address_of(spare.public_key))).number, now)
    outsider = Maker(outside, (await chain.account(address_of(outside.public_key))).number, now)

    await twin.send(at_any_time(make, header, PrivateKey(bytes([9] * 32))))
    twice = make.raw(make.claim(header))
    await twin.send({"fails in the block": twice})
    await twin.send({"the same bytes after they failed": twice})
    nonce = Timestamp.of_nanoseconds(now + 400_000_000_000)
    await twin.send({"first with this timeout": make.raw(make.claim(header), timeout=nonce)})
    await twin.send({"second with this timeout": make.raw(make.claim(header), timeout=nonce, memo="another")})
    await twin.send(in_session(make, header, outsider))
    windows = (await chain.shared_params(start)).windows(start)
    await twin.follow({}, windows.claim_open)
    await twin.send(in_claim_window(make, header, other, shifted))
    accepted = make.raw(make.claim(header, 8))
    await twin.send({"accepted": accepted})
    await twin.send({"the same bytes after they were accepted": accepted})
    await twin.follow({}, windows.proof_open)
    await twin.send(in_proof_window(make, header, other, third))
    balance = await chain.balance_upokt(make.address)
    faucet = address_of(keys["faucet"].public_key)
    await twin.send({"all but the fee": make.raw(make.send(balance - 9, faucet))})
    await twin.send({"operator cannot pay": make.raw(make.proof(header, relay(header, make.address)))})
    await twin.follow({}, windows.proof_close)
    await twin.send({"proof is late": make.raw(make.proof(header, relay(header, make.address)))})

    assert twin.local == twin.real
    assert sites.missed() == []
