"""Read lists that a node returns in pages."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeVar

from google.protobuf.message import Message

from pocket.chain import convert
from pocket.errors import DecodingError
from pocket.protocol.claims.proof_requirement import Claim
from pocket.protocol.pb import pocket_application_pb2 as application_pb
from pocket.protocol.pb import pocket_proof_pb2 as proof_pb

_PAGE: Final = 100
_MOST_PAGES: Final = 1000
ALL_CLAIMS: Final = "/pocket.proof.Query/AllClaims"
ALL_APPLICATIONS: Final = "/pocket.application.Query/AllApplications"
A = TypeVar("A", bound=Message)
ReadPage = Callable[[Message], Awaitable[bytes]]
"""Returns a page for a request that names it."""


async def _pages(method: str, request: Any, answer_type: type[A], page: ReadPage) -> AsyncIterator[A]:
    """Yield all pages of a list.

    Raises DecodingError if a node repeats a page or its pages do not end.
    """
    keys = [b""]
    while True:
        request.pagination.limit = _PAGE
        request.pagination.key = keys[-1]
        answer: Any = answer_type.FromString(await page(request))
        yield answer
        key = answer.pagination.next_key
        if not key:
            return
        if key in keys:
            raise DecodingError(f"{method}: the node repeats a page")
        if len(keys) >= _MOST_PAGES:
            raise DecodingError(f"{method}: the node has more than {_MOST_PAGES} pages")
        keys.append(key)


async def all_claims(supplier: str, page: ReadPage) -> list[Claim]:
    """Return all claims of a supplier. Raises DecodingError."""
    claims: list[Claim] = []
    request = proof_pb.QueryAllClaimsRequest(supplier_operator_address=supplier)
    async for answer in _pages(ALL_CLAIMS, request, proof_pb.QueryAllClaimsResponse, page):
        # A node that ignores the filter must not show us other suppliers' claims as ours.
        claims += [convert.claim(row) for row in answer.claims if row.supplier_operator_address == supplier]
    return claims


async def all_applications(page: ReadPage) -> frozenset[tuple[str, str]]:
    """Return address and service id of all applications' stakes. Raises DecodingError."""
    applications: set[tuple[str, str]] = set()
    request = application_pb.QueryAllApplicationsRequest()
    async for answer in _pages(ALL_APPLICATIONS, request, application_pb.QueryAllApplicationsResponse, page):
        applications |= {
            (row.address, config.service_id) for row in answer.applications for config in row.service_configs
        }
    return frozenset(applications)
