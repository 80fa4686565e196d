"""Sessions on the real chain from their first relay to their settlement, judged by the chain's own blocks."""

import asyncio
import base64
import contextlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from pocket.chain.client import ChainClient
from pocket.chain.comet import CometClient
from pocket.chain.model import Event
from pocket.chain.settlement_event import ClaimEnd, ClaimOutcome, claim_end
from pocket.errors import PocketError
from pocket.protocol.claims.rewards import TokenomicsParams, supplier_reward_upokt
from pocket.protocol.crypto.addresses import address_of
from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb
from pocket.protocol.pb import pocket_proof_pb2 as proof_pb
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.transactions.build import CREATE_CLAIM, SUBMIT_PROOF
from realchain import APPLICATIONS, SUBMISSION_FEE_UPOKT, THRESHOLD_UPOKT, UNITS, RealNode
from realstack import RealStack
from relayctl.client_transports import RelayFailed
from relayctl.gateway import Gateway, SessionSigner, json_rpc_envelope, rest_envelope

RELAYS = {"supplier1": 12, "supplier2": 6, "supplier3": 11}
"""Of each session and service: the first and the last are worth a proof, the second is not."""
BLOCKS_TO_SETTLE = 19
_RPC_TYPES = {"develop-http": 3, "develop-stream": 4}
Pair = tuple[str, str]  # session id, supplier operator address
Act = Callable[[], Awaitable[None]]


@dataclass
class Ledger:
    """What the chain's blocks say from one height on, to the upokt."""

    fees: Counter[str] = field(default_factory=Counter)
    paid: Counter[str] = field(default_factory=Counter)
    claims: Counter[Pair] = field(default_factory=Counter)
    proofs: Counter[Pair] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    ends: dict[Pair, ClaimEnd] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)

    def transaction(self, raw: bytes, code: int, log: str) -> None:
        tx = tx_pb.TxRaw.FromString(raw)
        info, body = tx_pb.AuthInfo.FromString(tx.auth_info_bytes), tx_pb.TxBody.FromString(tx.body_bytes)
        signer = address_of(info.signer_infos[0].public_key.value[2:])
        self.fees[signer] += sum(int(coin.amount) for coin in info.fee.amount)
        if code:
            self.failed.append(f"code {code}: {log}")
        for row in body.messages:
            counter = {CREATE_CLAIM: self.claims, SUBMIT_PROOF: self.proofs}.get(row.type_url)
            if counter is not None:
                kind = proof_pb.MsgCreateClaim if counter is self.claims else proof_pb.MsgSubmitProof
                message = kind.FromString(row.value)
                counter[message.session_header.session_id, message.supplier_operator_address] += 1

    def event(self, event: Event) -> None:
        self.others[event.type] += 1
        if (end := claim_end(event)) is None:
            return
        self.ends[end.session_id, end.supplier] = end
        for address, upokt in end.by_recipient.items():
            self.paid[address] += upokt


@dataclass
class Journey:
    """Traffic of some sessions in a row, what is done meanwhile, and the verdict on it."""

    node: RealNode
    stack: RealStack
    keys: Mapping[str, PrivateKey]
    chain: ChainClient
    comet: CometClient
    http: aiohttp.ClientSession
    sent: dict[Pair, int] = field(default_factory=dict)
    headers: dict[Pair, SessionHeader] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    seen: int = 0
    number: int = 0
    relays: Mapping[str, int] = field(default_factory=lambda: RELAYS)
    """Relays of each session and service, by the supplier's name."""

    async def height(self) -> int:
        """Return the latest height, and wait while the node is away."""
        while True:
            try:
                return (await self.comet.block()).height
            except PocketError:
                await asyncio.sleep(0.05)

    async def reach(self, height: int) -> None:
        """Wait for a block."""
        while await self.height() < height:  # noqa: ASYNC110 - a node in another process
            await asyncio.sleep(0.1)

    async def run(self, sessions: int, acts: Mapping[int, Act], *, again: bool = False) -> None:
        """Send relays in the next sessions and do what is to be done at heights counted from the first one's start.

        again: nodes are cut off with transactions that only they have, so one may be included beside its successor.
        """
        self.seen = await self.height()
        balances = await self._balances()
        stakes = await self._stakes()
        start = (self.seen - 1) // 10 * 10 + 11
        async with asyncio.TaskGroup() as group:
            group.create_task(self.traffic(start, sessions))
            group.create_task(self._acts(start, acts))
            await self.follow(start + 10 * (sessions - 1) + 9 + BLOCKS_TO_SETTLE)
        assert await self._stakes() == stakes
        await self._judge(balances, sessions, again=again)

    async def _acts(self, start: int, acts: Mapping[int, Act]) -> None:
        for offset, act in sorted(acts.items()):
            await self.reach(start + offset)
            await act()

    async def traffic(self, start: int, sessions: int) -> None:
        """Send the relays of some sessions, the first of which starts at a height."""
        gateway = Gateway(self.chain, self.http, self.keys["gateway1"])
        for number in range(sessions):
            await self.reach(start + 10 * number)
            for service, application in APPLICATIONS.items():
                address = address_of(self.keys[application].public_key)
                signer = await _until_known(gateway, address, service, start + 10 * number)
                for name, count in self.relays.items():
                    for _ in range(count):
                        await self._relay(gateway, signer, address_of(self.keys[name].public_key))

    async def _relay(self, gateway: Gateway, signer: SessionSigner, supplier: str) -> None:
        header = signer.session.header
        pair = header.session_id, supplier
        while True:
            self.number += 1
            url = self.stack.relayer_url
            if header.service_id == "develop-http":
                body = json.dumps({"jsonrpc": "2.0", "id": self.number, "method": "eth_blockNumber"})
                envelope = json_rpc_envelope(f"{url}/", body.encode())
            else:
                envelope = rest_envelope(f"{url}/weather/{self.number}")
            try:
                await gateway.send(url, signer.sign(supplier, envelope), _RPC_TYPES[header.service_id], 10)
                self.headers[pair] = header
                self.sent[pair] = self.sent.get(pair, 0) + 1
                return
            except RelayFailed as error:
                failure = error
            height, last = await self.height(), header.session_end_block_height
            assert height <= last, f"no relay was answered in the session that ends at {last}, now {height}: {failure}"
            await asyncio.sleep(0.2)

    async def follow(self, last: int) -> None:
        """Read every block up to a height."""
        while self.seen < last:
            await self.reach(self.seen + 1)
            try:
                await self._read(self.seen + 1)
            except (aiohttp.ClientError, PocketError, KeyError, TypeError):
                await asyncio.sleep(0.05)
                continue
            self.seen += 1

    async def _read(self, height: int) -> None:
        block, results = await self.rpc("block", height), await self.rpc("block_results", height)
        events = await self.comet.end_events(height, lambda event: True)
        txs = block["block"]["data"]["txs"] or []
        for raw, result in zip(txs, results["txs_results"] or [], strict=True):
            self.ledger.transaction(base64.b64decode(raw), result["code"], result["log"])
        for event in events:
            self.ledger.event(event)

    async def rpc(self, method: str, height: int) -> Any:
        """Return a result of CometBFT at a height."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"height": str(height)}}
        async with self.http.post(self.node.address.rpc, json=body) as answer:
            return (await answer.json())["result"]

    async def _balances(self) -> dict[str, int]:
        return {address: await self.chain.balance_upokt(address) for address in self.stack.addresses}

    async def _stakes(self) -> list[int]:
        return [(await self.chain.supplier(address)).stake_upokt for address in self.stack.addresses]

    async def _judge(self, before: Mapping[str, int], sessions: int, *, again: bool) -> None:
        book, split = self.ledger, await self.chain.tokenomics_params()
        assert len(self.sent) == sessions * len(APPLICATIONS) * len(self.relays)
        assert [kind for kind in book.others if "Slashed" in kind or "Expired" in kind or "Discarded" in kind] == []
        assert book.failed == [], "\n".join(book.failed)
        for pair, count in self.sent.items():
            self._judge_pair(pair, count, split)
        required = {pair for pair, count in self.sent.items() if count * UNITS >= THRESHOLD_UPOKT}
        assert set(book.claims) == set(self.sent)
        assert set(book.proofs) == required
        assert again or {*book.claims.values(), *book.proofs.values()} == {1}, "a fee was paid twice"
        submissions = Counter(supplier for _, supplier in book.proofs.elements())
        expected = {
            address: upokt + book.paid[address] - book.fees[address] - SUBMISSION_FEE_UPOKT * submissions[address]
            for address, upokt in before.items()
        }
        assert await self._balances() == expected

    def _judge_pair(self, pair: Pair, count: int, split: TokenomicsParams) -> None:
        end = self.ledger.ends.get(pair)
        assert end is not None, f"{pair}: {count} relays were not settled"
        assert (end.outcome, end.relays, end.settled_upokt) == (ClaimOutcome.SETTLED, count, count * UNITS), pair
        assert end.earned_upokt == supplier_reward_upokt(count * UNITS, split)


async def _until_known(gateway: Gateway, application: str, service: str, height: int) -> SessionSigner:
    while True:
        with contextlib.suppress(PocketError):
            return await gateway.signer(application, service, height)
        await asyncio.sleep(0.1)
