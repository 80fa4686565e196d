"""Define the commands of `kubectl pocket`, which are those of `relayctl k8s`.

They are status, explain, earnings, archive, doctor, bundle and clean.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from pocket.errors import ConfigurationError, PocketError
from pocket.kube.api_client import KubeApi, KubeError, connect
from pocket.redis_store.connection import connect as connect_redis
from pocket.redis_store.connection import redact_url
from pocket.redis_store.redis_keys import RedisKeys
from pocket.redis_store.store_errors import RedisUnavailable
from pocket_miner.console.earnings import GROUPINGS
from pocket_miner.storage.audit import AuditHead
from pocket_operator.resources import names
from relayctl.entry_point import run_in_words
from relayctl.k8s.cluster_view import ClusterView, default_namespace, gather, namespaced_name
from relayctl.k8s.dead_keys import ClusterFacts, PrefixFacts, delete_prefix, reasons_to_keep, watched
from relayctl.k8s.diagnosis import Severity, diagnose
from relayctl.k8s.incident_bundle import addresses_of, child_files, pod_files, view_files, write_bundle
from relayctl.k8s.pod_shell import PodCommandFailed, PodShell
from relayctl.k8s.redaction import Redactor
from relayctl.k8s.supplier_rows import COLUMNS, WIDE, supplier_rows
from relayctl.k8s.table_output import OutputFormat, Row, rendered
from relayctl.k8s.trail_archive import archive_pod, published_heads_of

T = TypeVar("T")
_FOUND_ERRORS: Final = 1
_CLEAR: Final = "\x1b[2J\x1b[H"


@dataclass(frozen=True, slots=True)
class ClusterTarget:
    """The cluster and namespace to read, and the form of the output.

    An empty namespace means all.
    """

    namespace: str
    context: str | None
    kubeconfig: str | None
    form: OutputFormat

    def run(self, work: Callable[[KubeApi], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine with a client of the API server. Raises ClickException."""

        async def connected() -> T:
            async with connect(kubeconfig=self.kubeconfig, context=self.context) as api:
                return await work(api)

        try:
            return asyncio.run(connected())
        except (KubeError, PocketError) as error:
            raise click.ClickException(str(error)) from None

    def view(self) -> ClusterView:
        """Read the cluster. Raises ClickException."""
        return self.run(lambda api: gather(api, self.namespace))

    def shell(self) -> PodShell:
        """Return kubectl for this cluster. Raises ClickException."""
        try:
            return PodShell.of(self.kubeconfig, self.context)
        except PodCommandFailed as error:
            raise click.ClickException(str(error)) from None


def _suppliers(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Propose the names of Suppliers, nothing if the cluster does not answer."""
    given = context.params
    target = _target(given.get("namespace"), False, given.get("context"), given.get("kubeconfig"), "table")
    try:
        supplier_names = [namespaced_name(row)[1] for row in target.view().suppliers]
    except click.ClickException:
        return []
    return sorted(name for name in supplier_names if name.startswith(incomplete))


def _target(
    namespace: str | None, all_namespaces: bool, context: str | None, kubeconfig: str | None, form: str
) -> ClusterTarget:
    chosen = "" if all_namespaces else namespace or default_namespace(kubeconfig, context)
    return ClusterTarget(chosen, context, kubeconfig, OutputFormat(form))


_formed = click.option("-o", "--output", "form", type=click.Choice([f.value for f in OutputFormat]),
                       default=OutputFormat.TABLE.value, show_default=True, help="Form of the output")  # fmt: skip


def _targeted(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that choose cluster and namespace.

    They are passed as `target`, also with that of `_formed`.
    """

    def run(
        namespace: str | None, all_namespaces: bool, context: str | None, kubeconfig: str | None,
        form: str = OutputFormat.TABLE.value, **options: Any,
    ) -> None:  # fmt: skip
        command(target=_target(namespace, all_namespaces, context, kubeconfig, form), **options)

    run.__doc__, run.__name__ = command.__doc__, command.__name__
    run.__dict__.update(command.__dict__)
    chosen: Callable[..., None] = run
    for option in (
        click.option("--kubeconfig", type=click.Path(exists=True, dir_okay=False),
                     help="Default: KUBECONFIG, or ~/.kube/config"),
        click.option("--context", help="Context of the kubeconfig. Default: its current one"),
        click.option("-A", "--all-namespaces", is_flag=True, help="Every namespace"),
        click.option("-n", "--namespace", help="Default: the context's"),
    ):  # fmt: skip
        chosen = option(chosen)
    return chosen


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def k8s() -> None:
    """Show and check RelayMiners and Suppliers in a cluster."""


@k8s.command()
@click.argument("supplier", required=False, shell_complete=_suppliers)
@click.option("-w", "--watch", is_flag=True, help="Repeat until Ctrl-C")
@click.option(
    "--interval", type=click.FloatRange(0.5, 3600), default=5.0, show_default=True, help="Seconds, with --watch"
)
@_formed
@_targeted
def status(target: ClusterTarget, supplier: str | None, watch: bool, interval: float) -> None:
    """Show stake, sessions, earnings, losses and funds of Suppliers.

    The next deadline is shown, too. Earnings are those of the supplier's side today (UTC) and in total, in upokt. The
    values are as old as the status of the resources, some seconds.
    """

    def once() -> str:
        rows = [row for row in supplier_rows(target.view()) if supplier in (None, row["name"])]
        if supplier is not None and not rows:
            raise click.ClickException(f"there is no Supplier {supplier} in namespace {target.namespace or '(all)'}")
        columns = COLUMNS if target.namespace else ("namespace", *COLUMNS)
        return rendered(rows, target.form, columns, WIDE)

    _repeat(once, interval if watch else None)


def _repeat(once: Callable[[], str], seconds: float | None) -> None:
    """Print once, or again and again after a pause.

    An unreachable API server does not end the repetition.
    """
    text = once()
    while True:
        click.echo(text)
        if seconds is None:
            return
        try:
            time.sleep(seconds)
            text = once()
        except KeyboardInterrupt:
            return
        except click.ClickException as error:
            text = f"{datetime.now(UTC):%H:%M:%S} {error.message}"
        if sys.stdout.isatty():
            click.echo(_CLEAR, nl=False)


def _miners(target: ClusterTarget, view: ClusterView) -> list[tuple[str, str]]:
    """Return namespace and name of the miners' pods.

    Raises ClickException without any.
    """
    pods = [namespaced_name(pod) for row in view.relay_miners for pod in view.pods_of(row, names.MINER)]
    if not pods:
        raise click.ClickException(f"there is no miner's pod in namespace {target.namespace or '(all)'}")
    return pods


def ask_miners(shell: PodShell, pods: Sequence[tuple[str, str]], *command: str) -> tuple[list[str], list[str]]:
    """Run a console command in every pod.

    Returns the outputs, and the failures as `pod: reason`.
    """
    outputs, failures = [], []
    for namespace, pod in pods:
        try:
            outputs.append(shell.console(namespace, pod, *command))
        except PodCommandFailed as error:
            failures.append(f"{pod}: {error}")
    return outputs, failures


@k8s.command()
@click.argument("session")
@_targeted
def explain(target: ClusterTarget, session: str) -> None:
    """Explain the state or outcome of a SESSION.

    It is given by its id or the beginning of it. Every miner's volume is read, which needs the right to run commands in
    pods.
    """
    outputs, failures = ask_miners(target.shell(), _miners(target, target.view()), "ledger", "explain", session)
    for output in outputs:
        click.echo(output.rstrip())
    if not outputs:
        raise click.ClickException("; ".join(failures))
    for failure in failures:
        if "no session on this volume" not in failure:
            click.echo(f"not read: {failure}", err=True)


def merged_earnings(outputs: Sequence[str]) -> list[Row]:
    """Return the sums of several miners' rows, which are one JSON object a line."""
    sums: dict[tuple[tuple[str, str], ...], dict[str, int]] = {}
    for line in (line for output in outputs for line in output.splitlines() if line.strip()):
        row = json.loads(line)
        amounts = {"upokt": int(row.pop("upokt")), "sessions": int(row.pop("sessions"))}
        group = tuple((str(key), str(value)) for key, value in row.items())
        total = sums.setdefault(tuple(sorted(group)), {"upokt": 0, "sessions": 0})
        for key, value in amounts.items():
            total[key] += value
    return [{**dict(group), **total} for group, total in sorted(sums.items())]


@k8s.command()
@click.option("--by", type=click.Choice(GROUPINGS), default="day", show_default=True, help="What a row sums up")
@click.option("--supplier", default="", help="Only of this operator address")
@click.option("--since", default="", help="Only since this UTC date, as in 2026-11-29")
@_formed
@_targeted
def earnings(target: ClusterTarget, by: str, supplier: str, since: str) -> None:
    """Show what each recipient received, and the fees, in upokt.

    Amounts are by session, day or service. Every miner's volume is read, which needs the right to run commands in pods.
    A volume that cannot be read makes the sums incomplete and the exit code 1.
    """
    command = ["ledger", "earnings", "--by", by, "--supplier", supplier, "--since", since]
    outputs, failures = ask_miners(target.shell(), _miners(target, target.view()), *command)
    columns = {
        "session": ("day", "service_id", "session_id"), "day": ("day", "service_id"), "service": ("service_id",),
    }.get(by, ())  # fmt: skip
    if outputs:
        click.echo(
            rendered(merged_earnings(outputs), target.form, ("supplier", *columns, "recipient", "upokt", "sessions"))
        )
    if failures:
        raise click.ClickException(f"incomplete, these miners were not read: {'; '.join(failures)}")


@k8s.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@_formed
@_targeted
def archive(target: ClusterTarget, folder: Path) -> None:
    """Append new outcomes of every volume to files in FOLDER.

    Each volume has a file of its own.

    `relayctl ledger verify --archive FILE` needs no cluster. Run it again, or as a job, for later outcomes. The exit
    code is 1 if a miner was not read or lacks outcomes that were published.
    """
    view = target.view()
    published: dict[str, dict[str, AuditHead]] = {namespaced_name(row)[0]: {} for row in view.relay_miners}
    for row in view.relay_miners:
        published[namespaced_name(row)[0]].update(published_heads_of(row))
    miners, shell = _miners(target, view), target.shell()
    results = [archive_pod(shell, namespace, pod, folder, published[namespace]) for namespace, pod in miners]
    rows = [
        {"pod": row.pod, "added": row.done.added, "last": row.done.number, "file": str(row.done.file)}
        for row in results
        if row.done is not None
    ]
    click.echo(rendered(rows, target.form, ("pod", "added", "last", "file")))
    if problems := [f"{row.pod}: {row.problem}" for row in results if row.problem]:
        raise click.ClickException("; ".join(problems))


@k8s.command()
@_formed
@_targeted
def doctor(target: ClusterTarget) -> None:
    """Find what is wrong and print the remedy.

    The exit code is 1 if something loses relays or money, or will.
    """
    findings = diagnose(target.view())
    if not findings and target.form in (OutputFormat.TABLE, OutputFormat.WIDE):
        click.echo("Nothing is wrong.")
    elif target.form in (OutputFormat.JSON, OutputFormat.YAML):
        click.echo(rendered([finding.row() for finding in findings], target.form, ()))
    else:
        for finding in findings:
            click.echo(f"{finding.severity.upper():8} {finding.subject}: {finding.message}\n         {finding.remedy}")
    if any(finding.severity is Severity.ERROR for finding in findings):
        raise click.exceptions.Exit(_FOUND_ERRORS)


@k8s.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option("--lines", type=click.IntRange(0, 1_000_000), default=5000, show_default=True, help="Lines of each log")
@click.option("--logs/--no-logs", default=True, help="Without logs and reports, kubectl is not needed")
@_targeted
def bundle(target: ClusterTarget, file: Path | None, lines: int, logs: bool) -> None:
    """Write an archive for finding faults to FILE. It has no secrets.

    It has resources, Events, findings, reports and logs. Secrets are never read. Credentials in configuration, texts
    and URLs are redacted. Read it before you share it.
    """
    view = target.view()
    path = file or Path(f"pocket-{view.now:%Y%m%dT%H%M%SZ}.tar.gz")
    files = [*view_files(view), *target.run(lambda api: child_files(api, view))]
    shell = target.shell() if logs else None
    pods = pod_files(shell, view, lines) if shell is not None else iter(())
    try:
        written = write_bundle(path, (*files, *pods), Redactor(addresses_of(view)), view.now)
    except PocketError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{len(written)} files in {path}")


def cluster_facts(view: ClusterView, owner: str, prefix: str) -> ClusterFacts:
    """Return what a reading of all namespaces knows of a RelayMiner and its prefix."""
    namespace, _, name = owner.partition("/")
    pods = [
        "/".join(namespaced_name(pod)) for pod in view.pods
        if pod["metadata"]["namespace"] == namespace
        and (pod["metadata"].get("labels") or {}).get(names.LABEL_RELAY_MINER) == name
    ]  # fmt: skip
    same = [
        "/".join(other) for row in view.relay_miners
        if (row["spec"].get("prefix") or "-".join(namespaced_name(row))) == prefix
        and (other := namespaced_name(row)) != (namespace, name)
    ]  # fmt: skip
    exists = any(namespaced_name(row) == (namespace, name) for row in view.relay_miners)
    return ClusterFacts(exists, tuple(pods), tuple(same))


@k8s.command()
@click.argument("name")
@click.option("--redis", "url", required=True, help="redis://host:6379/0; port-forward it where it is in a cluster")
@click.option("--prefix", help="Default: <namespace>-<name>")
@click.option("--watch-seconds", type=click.FloatRange(0, 3600), default=60.0, show_default=True,
              help="How long nothing must change")  # fmt: skip
@click.option("--discard-open-sessions", is_flag=True, help="Also delete relays that were never claimed")
@click.option("--confirm", help="NAMESPACE/NAME to delete. Without it, only show what would be deleted")
@_formed
@_targeted
def clean(
    target: ClusterTarget, name: str, url: str, prefix: str | None, watch_seconds: float, discard_open_sessions: bool,
    confirm: str | None,
) -> None:  # fmt: skip
    """Delete the Redis keys of a RelayMiner NAME that is gone.

    Nothing is deleted while its RelayMiner or pods exist, while anything uses the keys, or while sessions are open.
    """
    if not target.namespace:
        raise click.ClickException("name one namespace with -n")
    owner = f"{target.namespace}/{name}"
    everywhere = ClusterTarget("", target.context, target.kubeconfig, target.form)
    try:
        keys = RedisKeys(prefix or f"{target.namespace}-{name}")
        everywhere.view()  # an unreachable cluster is reported before the wait, not after it
        first, second = asyncio.run(_with_redis(url, lambda redis: watched(redis, keys, watch_seconds)))
        cluster = cluster_facts(everywhere.view(), owner, keys.prefix)
        reasons = reasons_to_keep(owner, first, second, cluster, discard_open=discard_open_sessions)
        _show_keys(second, target.form)
        if reasons:
            raise click.ClickException(f"nothing was deleted: {'; '.join(reasons)}")
        if confirm != owner:
            wrong = f"--confirm is {confirm}. " if confirm else ""
            click.echo(f"{wrong}Nothing was deleted. To delete these {second.total} keys: --confirm {owner}", err=True)
            return
        deleted = asyncio.run(_with_redis(url, lambda redis: delete_prefix(redis, keys, owner)))
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from None
    except RedisUnavailable as error:
        raise click.ClickException(f"Redis {redact_url(url)}: {error}") from None
    click.echo(f"{deleted} keys deleted", err=True)


def _show_keys(facts: PrefixFacts, form: OutputFormat) -> None:
    rows = [{"kind": kind, "keys": number} for kind, number in sorted(facts.keys.items())]
    click.echo(rendered(rows, form, ("kind", "keys")))


async def _with_redis(url: str, work: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
    redis = connect_redis(url)
    try:
        return await work(redis)
    finally:
        await redis.aclose()


def main() -> None:
    """Run as `kubectl-pocket`, which kubectl finds in PATH."""
    run_in_words(lambda: k8s(prog_name="kubectl pocket"))


if __name__ == "__main__":
    main()
