"""Chain clients and signing keys of one round of stakes, each opened or read once."""

import asyncio
from collections import defaultdict
from contextlib import AsyncExitStack

import aiohttp

from pocket.api.relayminer import ChainSpec
from pocket.api.supplier import Supplier
from pocket.chain.client import ChainClient
from pocket.chain.comet import CometClient
from pocket.chain.failover import NodeAddress
from pocket.errors import DecodingError
from pocket.kube.api_client import KubeApi
from pocket.protocol.crypto.ecdsa import PrivateKey
from pocket.staking.chain import StakeChain
from pocket_operator.decide.snapshot import SecretView
from pocket_operator.resources import names
from pocket_operator.resources.kinds import SECRETS

_NamespacedName = tuple[str, str]


class StakeKeys:
    """Keys of one round.

    Each Secret is read once: the Suppliers of a RelayMiner may share one.
    """

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._locks = defaultdict[_NamespacedName, asyncio.Lock](asyncio.Lock)
        self._views: dict[_NamespacedName, SecretView | None] = {}

    async def key(self, namespace: str, relay_miner: str, supplier: Supplier) -> PrivateKey | None:
        """Return the key of spec.stake.keySecretRef, else the supplier's published key."""
        reference = supplier.spec.stake.key_secret_ref if supplier.spec.stake is not None else None
        name, entry = names.keys(relay_miner, names.MINER), supplier.spec.operator_address
        if reference is not None:
            name, entry = reference.name, reference.key
        view = await self._read((namespace, name))
        text = None if view is None else view.entries.get(entry)
        try:
            return None if text is None else PrivateKey.from_hex(text.strip().removeprefix("0x"))
        except DecodingError:
            return None

    async def _read(self, secret_key: _NamespacedName) -> SecretView | None:
        async with self._locks[secret_key]:
            if secret_key not in self._views:
                secret = await self._api.get_or_none(SECRETS, *secret_key)
                self._views[secret_key] = None if secret is None else SecretView.of(secret)
            return self._views[secret_key]


class StakeChains:
    """Clients of the chain nodes for one round.

    All Suppliers with the same nodes share one.
    """

    def __init__(self, stack: AsyncExitStack, http: aiohttp.ClientSession) -> None:
        self._stack = stack
        self._http = http
        self._made: dict[str, StakeChain] = {}

    async def of(self, chain: ChainSpec) -> StakeChain:
        """Return the client for a chain, opened when first wanted."""
        key = chain.model_dump_json()
        if key not in self._made:
            nodes = [NodeAddress.parse(node.grpc, node.rpc) for node in chain.nodes]
            client = ChainClient(nodes, chain.query_timeout_seconds)
            comet = CometClient(nodes, self._http, chain.query_timeout_seconds, chain_id=chain.id)
            self._made[key] = StakeChain(client, comet, chain.id)
            await self._stack.enter_async_context(client)
        return self._made[key]
