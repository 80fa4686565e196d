"""A localnet that follows the real chain: same accounts, same block hashes and times, same transactions."""

import asyncio
import base64
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import aiohttp

from journey import Journey
from pocket.errors import PocketError
from pocket.protocol.crypto.addresses import address_of
from pocket.protocol.transactions.build import transaction_hash
from pocket_localnet.genesis import Genesis
from pocket_localnet.local_chain import LocalChain
from realchain import GAS_PRICE

Answer = tuple[int, str]  # code and codespace of a refusal, (0, "") where a transaction succeeded
_PEOPLE = ("supplier1", "supplier2", "supplier3", "supplier4", "supplier5", "app2", "app4", "app5", "gateway1")


@dataclass
class Twin:
    """The real node beside its localnet."""

    journey: Journey
    chain: LocalChain
    hashes: dict[int, bytes]
    real: dict[str, Answer] = field(default_factory=dict)
    local: dict[str, Answer] = field(default_factory=dict)

    async def send(self, cases: Mapping[str, bytes]) -> None:
        """Hand transactions to both, one after the other, and note by name what each says in the end."""
        waiting = {}
        for name, raw in cases.items():
            result = await self.journey.chain.broadcast(raw)
            self.real[name] = (result.code, result.codespace)
            if result.code:
                local = self.chain.broadcast(raw)
                self.local[name] = (local.code, local.codespace)
            else:
                waiting[transaction_hash(raw)] = name
        await self.follow(waiting)

    async def follow(self, waiting: Mapping[str, str], to: int = 0) -> None:
        """Replay blocks until all awaited transactions were in one, and up to a height."""
        left = dict(waiting)
        while left or self.chain.height < to:
            height = self.chain.height + 1
            await self.journey.reach(height)
            block = await self.journey.comet.block(height)
            self.hashes[height] = block.hash
            texts, results = await self._transactions(height)
            raws = [base64.b64decode(text) for text in texts]
            for raw in raws:
                if (name := left.get(transaction_hash(raw))) is not None:
                    local = self.chain.broadcast(raw)
                    assert local.code == 0, f"{name}: the node took it, localnet says {local}"
            self.chain.step(block.time.nanoseconds)
            for raw, result in zip(raws, results, strict=True):
                tx_hash = transaction_hash(raw)
                if (name := left.pop(tx_hash, None)) is not None:
                    self.real[name] = (result["code"], result["codespace"])
                    local = self.chain.transactions[tx_hash].result
                    self.local[name] = (local.code, local.codespace)

    async def _transactions(self, height: int) -> tuple[list[str], list[dict]]:
        while True:
            try:
                block = await self.journey.rpc("block", height)
                results = await self.journey.rpc("block_results", height)
                return block["block"]["data"]["txs"] or [], results["txs_results"] or []
            except (aiohttp.ClientError, PocketError, KeyError):  # its results come a moment after the block
                await asyncio.sleep(0.05)


async def twin_of(journey: Journey) -> Twin:
    """Return a localnet in the state of the real chain."""
    chain, hashes = journey.chain, {}
    people = {name: journey.keys[name] for name in _PEOPLE}
    accounts = []
    for key in people.values():
        address = address_of(key.public_key)
        account = await chain.account(address)
        accounts.append({
            "address": address, "balance": await chain.balance_upokt(address), "number": account.number,
            "public_key": key.public_key.hex(),
        })  # fmt: skip
    suppliers = []
    for name in _PEOPLE[:4]:
        record = await chain.supplier(address_of(people[name].public_key))
        suppliers.append({
            "operator": record.operator_address, "owner": record.owner_address, "stake": record.stake_upokt,
            "services": sorted(record.service_ids),
        })  # fmt: skip
    applications = []
    for name in ("app2", "app4", "app5"):
        app = await chain.application(address_of(people[name].public_key))
        applications.append({
            "address": app.address, "stake": app.stake_upokt, "service": app.service_ids[0],
            "gateways": list(app.gateway_addresses),
        })  # fmt: skip
    shared, proof = await chain.shared_params(), await chain.proof_params()
    anchors = ("session_grid_anchor_height", "session_number_at_anchor")
    genesis = Genesis.model_validate({
        "minimum_gas_price": GAS_PRICE, "accounts": accounts, "suppliers": suppliers, "applications": applications,
        "services": [
            {"id": service, "compute_units_per_relay": await chain.compute_units_per_relay(service, 1),
             "owner": applications[0]["address"]}
            for service in sorted({s for row in suppliers for s in row["services"]})
        ],
        "shared_params": {f.name: getattr(shared, f.name) for f in fields(shared) if f.name not in anchors},
        "proof_params": {
            "proof_request_probability": proof.proof_request_probability,
            "proof_requirement_threshold": proof.proof_requirement_threshold_upokt,
            "proof_missing_penalty": proof.proof_missing_penalty_upokt,
            "proof_submission_fee": proof.proof_submission_fee_upokt,
        },
        "num_suppliers_per_session": await chain.num_suppliers_per_session(),
    })  # fmt: skip
    height = await journey.height()
    hashes[height] = (await journey.comet.block(height)).hash
    made = LocalChain(genesis, hash_of=lambda at, _: hashes.get(at, bytes(32)), first_height=height)
    return Twin(journey, made, hashes)
