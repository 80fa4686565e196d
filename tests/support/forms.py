"""Other bytes that say the same as a relay request: whoever saw it can write them without a key."""

from dataclasses import replace

from pocket.protocol.crypto import curve
from pocket.protocol.crypto.hashing import challenge, hash_to_point
from pocket.protocol.relays.messages import RelayRequest
from pocket.protocol.relays.wire import bytes_field

HEAD, MEMBER = 69, 65


def rotated(message_hash: bytes, signature: bytes) -> bytes:
    """Return the same ring, begun at the next member with the challenge there."""
    start, image = curve.decode_scalar(signature[4:36]), curve.decode_point(signature[36:HEAD])
    scalar, member = curve.decode_scalar(signature[HEAD : HEAD + 32]), signature[HEAD + 32 : HEAD + MEMBER]
    left = curve.multiply_base_and_point(scalar, start, curve.decode_point(member))
    right = curve.add(curve.multiply(scalar, hash_to_point(member)), curve.multiply(start, image))
    begun = curve.encode_scalar(challenge(message_hash, left, right))
    return signature[:4] + begun + signature[36:HEAD] + signature[HEAD + MEMBER :] + signature[HEAD : HEAD + MEMBER]


def other_forms(request: RelayRequest) -> dict[str, bytes]:
    """Name → encoded request."""
    encoded, signed = request.encode(), request.signature
    turned = replace(request, signature=rotated(request.signable_hash(), signed))
    length, payload = len(request.payload), bytes_field(2, request.payload)
    meta = encoded[: -len(payload)]
    long = bytes((length & 127 | 128, length >> 7 | 128, 0))
    return {
        "a byte after the last member": replace(request, signature=signed + b"\0").encode(),
        "a ring begun elsewhere": turned.encode(),
        "an unknown field": encoded + b"\x9a\x06\x01A",
        "an unknown number": encoded + b"\x78\x01",
        "an unknown group": encoded + b"\x7b\x7c",
        "the payload first": payload + meta,
        "another payload before it": meta + b"\x12\x01x" + payload,
        "a length in more bytes than it needs": meta + b"\x12" + long + payload[-length:],
        "an empty part to be merged": encoded + b"\x0a\x00",
    }
