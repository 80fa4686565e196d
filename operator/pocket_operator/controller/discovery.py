"""Read what the API server serves.

That is the schemas of our kinds, and the optional kinds.
"""

from http import HTTPStatus

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.api.base import API_VERSION
from pocket.kube.api_client import NO_ANSWER, KubeApi, KubeError, ResourceKind
from pocket_operator.controller import operator_metrics
from pocket_operator.decide.schemas import INDEX, PATH, Schemas, published_version
from pocket_operator.resources.kinds import OPTIONAL_CHILDREN, RELAY_MINERS, SUPPLIERS

_LOG: FilteringBoundLogger = structlog.get_logger()


class Discovery:
    """The last valid answer. An answer that lacks a required field changes nothing."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self.schemas = Schemas()
        self.optional_kinds: frozenset[str] = frozenset()
        self.missing_kinds: frozenset[ResourceKind] = frozenset()
        self._version = ""

    async def find_missing_kinds(self) -> bool:
        """Find those of our kinds that the API server does not serve.

        Returns True if they changed. Raises KubeError if it does not answer.
        """
        try:
            rows = (await self._api.call("GET", f"/apis/{API_VERSION}")).get("resources")
            if not rows:  # a group without resources is not served (404)
                return False
        except KubeError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            rows = ()
        served = {str(row.get("name")) for row in rows}
        missing = frozenset(kind for kind in (RELAY_MINERS, SUPPLIERS) if kind.plural not in served)
        for kind in (RELAY_MINERS, SUPPLIERS):
            operator_metrics.DEFINITIONS_MISSING.labels(kind.name).set(kind in missing)
        if missing == self.missing_kinds:
            return False
        if missing:
            _LOG.error(
                "a CustomResourceDefinition is missing: apply the definitions of this release again, "
                "kubectl apply --server-side -k crds/",
                kinds=sorted(kind.name for kind in missing),
            )
        else:
            _LOG.info("all definitions are there again")
        self.missing_kinds = missing
        return True

    async def find_optional_kinds(self) -> bool:
        """Find the optional kinds of this cluster.

        Returns True if they changed. Raises KubeError if the API server does not answer.
        """
        kinds: set[str] = set()
        for version in {kind.api_version for kind in OPTIONAL_CHILDREN}:
            try:
                rows = (await self._api.call("GET", f"/apis/{version}")).get("resources")
            except KubeError as error:
                if error.status != HTTPStatus.NOT_FOUND:
                    raise
                continue
            # A group without resources is not served (404).
            known = {row["kind"] for row in rows} if rows else self.optional_kinds
            kinds |= {kind.name for kind in OPTIONAL_CHILDREN if kind.api_version == version and kind.name in known}
        if kinds == self.optional_kinds:
            return False
        self.optional_kinds = frozenset(kinds)
        _LOG.info("optional kinds changed", kinds=sorted(kinds))
        return True

    async def compare_schemas(self) -> None:
        """Compare the installed definitions with those of this release.

        Only once they changed. The API server publishes changed definitions some seconds after it serves them. Raises
        KubeError if it does not answer.
        """
        try:
            version = published_version(await self._api.call("GET", INDEX))
            if version and version == self._version:
                return
            schemas = Schemas.of(await self._api.call("GET", PATH))
        except KubeError as error:
            if error.status in NO_ANSWER:
                raise
            _LOG.warning("cannot read the schemas of our kinds, keeping those that are known", error=error)
            return
        if self.schemas.covered_by(schemas):
            self.schemas, self._version = schemas, version
        for kind in (RELAY_MINERS.name, SUPPLIERS.name):
            difference = self.schemas.difference(kind)
            for state, paths in (("missing", difference.missing), ("unknown", difference.unknown)):
                operator_metrics.SCHEMA.labels(kind, state).set(len(paths))
                if paths:
                    _LOG.warning(f"the installed definition has {state} fields", kind=kind, fields=paths[:10])
