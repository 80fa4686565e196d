"""Provide the commands `relayctl stake`: plan, sign and send a declared stake."""

import asyncio
import base64
import binascii
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import yaml
from google.protobuf.message import DecodeError
from pydantic import BaseModel, ConfigDict, ValidationError

from pocket.api.base import ManifestError, problem_of
from pocket.api.manifests import load_manifests
from pocket.api.stake import StakeSpec
from pocket.chain.client import ChainClient
from pocket.chain.comet import CometClient
from pocket.chain.failover import NodeAddress
from pocket.errors import DecodingError, PocketError
from pocket.protocol.crypto.addresses import address_of
from pocket.protocol.pb import cosmos_tx_v1beta1_pb2 as tx_pb
from pocket.protocol.transactions.build import GasPrice, TransactionPlan, sign_transaction, transaction_hash
from pocket.protocol.transactions.staking import message_of_json, unsigned_json
from pocket.runtime.http_sessions import http_session
from pocket.staking.chain import SentOutcome, StakeChain
from pocket.staking.declared import StakeDefaultsMissing, declared_stake, with_defaults
from pocket.staking.stake_model import Signing, StakePlan, StakeState
from pocket.staking.stake_plan import plan_stake
from relayctl.key_commands import KEY_FILE, read_key
from relayctl.key_files import read_small_text
from relayctl.option_types import account_address

T = TypeVar("T")
_REFUSED, _NOTHING = 3, 4
_CHECKSUM_DIGITS = 16


class PlanFile(BaseModel):
    """An unsigned transaction and what its signature covers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    plan_hash: str
    signer: str
    chain_id: str
    account_number: int
    sequence: int
    gas_limit: int
    fee_upokt: int
    unsigned: dict[str, Any]

    def transaction(self) -> TransactionPlan:
        """Return the transaction to sign.

        Raises DecodingError where the file was changed by hand.
        """
        try:
            messages = tuple(message_of_json(row) for row in self.unsigned["body"]["messages"])
        except (KeyError, TypeError) as error:
            raise DecodingError("the plan file holds no messages: make it again with `relayctl stake plan`") from error
        plan = TransactionPlan(
            messages, self.chain_id, self.account_number, self.gas_limit, self.fee_upokt, None, "", self.sequence,
            unordered=False,
        )  # fmt: skip
        if unsigned_json(plan) != self.unsigned:
            raise DecodingError("the plan file was changed: make it again with `relayctl stake plan`")
        return plan

    @property
    def checksum(self) -> str:
        """Return a digest of what is signed.

        Signed are messages, signer, chain, account, sequence, gas and fee. Other than `plan_hash`, which only the
        chain's state can confirm, it is computed from the file's content.
        """
        content = json.dumps(self.model_dump(exclude={"plan_hash"}), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()[:_CHECKSUM_DIGITS]


def _node_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--grpc", "grpc_address", required=True, help="A chain node, grpc://host:port"),
        click.option("--rpc", "rpc_address", default="http://127.0.0.1:26657", show_default=True,
                     help="CometBFT RPC of the chain node"),
        click.option("--chain-id", default="pocket", show_default=True),
    )[::-1]:  # fmt: skip
        command = option(command)
    return command


@asynccontextmanager
async def _chain(grpc_address: str, rpc_address: str, chain_id: str) -> AsyncIterator[StakeChain]:
    nodes = [NodeAddress.parse(grpc_address, rpc_address)]
    async with ChainClient(nodes) as client, http_session() as http:
        yield StakeChain(client, CometClient(nodes, http, chain_id=chain_id), chain_id)


def _run(task: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(task)
    except PocketError as error:
        raise click.ClickException(str(error)) from None


@click.group()
def stake() -> None:
    """Stake, change or unstake a supplier. Its Supplier resource declares it."""


@stake.command("plan")
@click.option("-f", "--file", "files", type=click.Path(path_type=Path, exists=True), multiple=True, required=True,
              help="YAML file or folder that holds the Supplier")  # fmt: skip
@click.option("--name", help="Name of the Supplier. Default: the only one with spec.stake")
@click.option("--signer", callback=account_address, help="Address that signs and pays. Default: the operator")
@click.option("--gas-price", default="0.000001upokt", show_default=True)
@click.option("-o", "--output", "out", type=click.Path(path_type=Path, dir_okay=False),
              help="File for `relayctl stake sign`")  # fmt: skip
@click.option("--unsigned", type=click.Path(path_type=Path, dir_okay=False),
              help="File with the unsigned transaction for `pocketd tx sign`, also of a multisig account")  # fmt: skip
@_node_options
def plan_command(
    files: tuple[Path, ...],
    name: str | None,
    signer: str | None,
    gas_price: str,
    out: Path | None,
    unsigned: Path | None,
    **node: str,
) -> None:
    """Show what differs from the chain. Show the transaction that changes it.

    Nothing is sent. Exit code 0: a transaction is planned. 4: staked as declared. 3: refused. Others are
    errors: 2 for a wrong option or a missing file, 1 for the rest.
    """
    operator, spec = _declared(files, name)
    declared = declared_stake(operator, spec)
    paying = signer or operator

    async def make() -> tuple[StakePlan, TransactionPlan | None]:
        async with _chain(**node) as chain:
            plan = plan_stake(
                declared, await chain.snapshot(operator, paying), Signing(paying, GasPrice.parse(gas_price))
            )
            wanted = plan.state is StakeState.CHANGE
            return plan, await chain.unsigned(plan, paying) if wanted else None

    plan, transaction = _run(make())
    _show(plan)
    if transaction is None:
        raise SystemExit(_REFUSED if plan.state is StakeState.REFUSED else _NOTHING)
    shown = unsigned_json(transaction)
    if unsigned is not None:
        _write(unsigned, json.dumps(shown))
        click.echo(f"account number {transaction.account_number}, sequence {transaction.sequence}")
    if out is not None:
        content = PlanFile(
            plan_hash=plan.plan_hash, signer=paying, chain_id=transaction.chain_id,
            account_number=transaction.account_number, sequence=transaction.sequence, gas_limit=transaction.gas_limit,
            fee_upokt=transaction.fee_upokt or 0, unsigned=shown,
        )  # fmt: skip
        _write(out, content.model_dump_json(indent=2))
        click.echo(f"checksum of {out}: {content.checksum}")


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from None


def _declared(files: tuple[Path, ...], name: str | None) -> tuple[str, StakeSpec]:
    try:
        manifests = load_manifests(files)
    except ManifestError as error:
        raise click.ClickException(str(error)) from None
    staked = {s.metadata.name: (s.spec.operator_address, s.spec.stake) for s in manifests.suppliers if s.spec.stake}
    if not staked:
        raise click.ClickException("no Supplier in these files has spec.stake, which declares a stake: docs/staking.md")
    chosen = name if name is not None or len(staked) > 1 else next(iter(staked))
    if chosen not in staked:
        raise click.ClickException(f"choose a Supplier with --name. Those with spec.stake: {', '.join(sorted(staked))}")
    operator, spec = staked[chosen]
    stakes = {row.metadata.name: row.spec.stake for row in manifests.suppliers}
    try:
        complete, inherited = with_defaults(spec, stakes.get(spec.defaults_from.name) if spec.defaults_from else None)
    except StakeDefaultsMissing as error:
        raise click.ClickException(str(error)) from None
    if inherited and spec.defaults_from is not None:
        click.echo(f"from Supplier {spec.defaults_from.name}: {', '.join(inherited)}", err=True)
    return operator, complete


def _show(plan: StakePlan) -> None:
    click.echo(f"{plan.state}: {plan.detail}")
    if plan.state is not StakeState.CHANGE:
        return
    for line in plan.effect:
        click.echo(f"  {line}")
    cost = plan.cost
    click.echo(
        f"cost: {cost.total_upokt} upokt (stake {cost.stake_upokt}, staking fee {cost.staking_fee_upokt}, transaction "
        f"fee {cost.transaction_fee_upokt})"
    )
    if plan.left:
        click.echo(f"left for another signer: {', '.join(plan.left)}")
    if plan.approvals:
        click.echo(f"careful: {', '.join(plan.approvals)}")
    click.echo(f"hash: {plan.plan_hash}")


@stake.command("sign")
@click.argument("plan_file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@KEY_FILE
@click.option("-o", "--output", "out", type=click.Path(path_type=Path, dir_okay=False), required=True,
              help="File for the signed transaction, base64")  # fmt: skip
@click.option("--checksum", help="Sign only a file with this checksum, which `relayctl stake plan` printed")
def sign_command(plan_file: Path, key_file: Path | None, out: Path, checksum: str | None) -> None:
    """Show a plan's transaction and sign it.

    Needs no network, so it can run on a machine without one.
    """
    try:
        content = PlanFile.model_validate_json(read_small_text(plan_file))
        transaction = content.transaction()
    except ValidationError as error:
        raise click.ClickException(f"{plan_file}: {problem_of(error)}") from None
    except DecodingError as error:
        raise click.ClickException(f"{plan_file}: {error}") from None
    if checksum is not None and checksum != content.checksum:
        raise click.ClickException(
            f"{plan_file} has checksum {content.checksum}, not {checksum}: it was changed since it was planned"
        )
    key = read_key(key_file)
    if address_of(key.public_key) != content.signer:
        raise click.ClickException(f"the key belongs to {address_of(key.public_key)}, the plan to {content.signer}")
    click.echo(yaml.safe_dump(content.unsigned["body"]["messages"], sort_keys=False, width=120).rstrip())
    click.echo(
        f"signer {content.signer}, chain {content.chain_id}, sequence {content.sequence}, fee {content.fee_upokt} upokt"
    )
    signed = sign_transaction(transaction, key)
    _write(out, base64.b64encode(signed.raw).decode())
    click.echo(f"signed {plan_file} with checksum {content.checksum}: {signed.tx_hash}")


def signed_transaction(file: Path) -> tuple[bytes, int]:
    """Return the bytes of a signed transaction and its gas limit.

    Raises ClickException.
    """
    try:
        raw = base64.b64decode(read_small_text(file), validate=True)
        transaction = tx_pb.TxRaw.FromString(raw)
        gas_limit = tx_pb.AuthInfo.FromString(transaction.auth_info_bytes).fee.gas_limit
    except (binascii.Error, ValueError, DecodeError) as error:
        raise click.ClickException(
            f"{file}: not a signed transaction as base64 text, as `pocketd tx encode` prints it"
        ) from error
    if not transaction.body_bytes or not any(transaction.signatures):
        raise click.ClickException(f"{file}: the transaction is not signed: sign it first, then `pocketd tx encode`")
    return raw, gas_limit


@stake.command("send")
@click.argument("signed_file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--wait", "seconds", type=click.FloatRange(0, 3600), default=120.0, show_default=True,
              help="Seconds to wait for the block")  # fmt: skip
@_node_options
def send_command(signed_file: Path, seconds: float, **node: str) -> None:
    """Send a signed transaction and wait for its block.

    The file holds base64 bytes, also those of `pocketd tx encode`. The transaction is simulated first: what the chain
    would refuse costs no fee. Sending the same file twice is harmless.
    """
    raw, gas_limit = signed_transaction(signed_file)

    async def deliver() -> None:
        tx_hash = transaction_hash(raw)
        async with _chain(**node) as chain:
            state = await chain.outcome(tx_hash, None)
            if state.outcome is SentOutcome.WAITING:
                await chain.check(raw, gas_limit)
                if refusal := (await chain.send(raw)).log:
                    raise click.ClickException(f"{tx_hash} was refused: {refusal}")
            async with asyncio.timeout(seconds):
                while state.outcome is SentOutcome.WAITING:
                    await asyncio.sleep(0.2)
                    state = await chain.outcome(tx_hash, None)
        if state.outcome is SentOutcome.FAILED:
            raise click.ClickException(f"{tx_hash} failed in block {state.height}: {state.log}")
        click.echo(f"{tx_hash} is in block {state.height}")

    try:
        _run(deliver())
    except TimeoutError:
        raise click.ClickException(
            f"{transaction_hash(raw)} was sent and is in no block after {seconds:.0f} s. Send the same file again."
        ) from None
