"""Read all pages of a supplier's claims."""

from collections.abc import Awaitable, Callable
from typing import Final

from google.protobuf.message import Message

from pocket.chain import convert
from pocket.errors import DecodingError
from pocket.protocol.claims.proof_requirement import Claim
from pocket.protocol.pb import pocket_proof_pb2 as proof_pb

_PAGE: Final = 100
_MOST_PAGES: Final = 1000
ALL_CLAIMS: Final = "/pocket.proof.Query/AllClaims"


async def all_claims(supplier: str, page: Callable[[Message], Awaitable[bytes]]) -> list[Claim]:
    """Read all pages of a supplier's claims.

    Raises DecodingError if a node repeats a page or its pages do not end.
    """
    found: list[Claim] = []
    keys = [b""]
    while True:
        request = proof_pb.QueryAllClaimsRequest(supplier_operator_address=supplier)
        request.pagination.limit = _PAGE
        request.pagination.key = keys[-1]
        answer = proof_pb.QueryAllClaimsResponse.FromString(await page(request))
        # A node that ignores the filter must not show us other suppliers' claims as ours.
        found += [convert.claim(row) for row in answer.claims if row.supplier_operator_address == supplier]
        key = answer.pagination.next_key
        if not key:
            return found
        if key in keys:
            raise DecodingError(f"{ALL_CLAIMS}: the node repeats a page")
        if len(keys) >= _MOST_PAGES:
            raise DecodingError(f"{ALL_CLAIMS}: the node has more than {_MOST_PAGES} pages for one supplier")
        keys.append(key)
