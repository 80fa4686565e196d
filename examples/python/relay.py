"""Sign a relay, send it to a relayer and verify the signed response.

Needs Python 3.11 or later, and no packages.

Usage: GATEWAY_KEY=<hex> python relay.py SESSION.json RELAYER_URL [METHOD]

SESSION.json is the output of `relayctl relay session`. The arithmetic is written to be read. It does not run in constant
time: sign with a maintained library in production.
"""

import hashlib
import json
import os
import secrets
import sys
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

# secp256k1. A point is a pair (x, y), None is the point at infinity.
P = 2**256 - 2**32 - 977
N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
G = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
)


def add(a, b):
    if a is None or b is None:
        return a or b
    if a[0] == b[0]:
        if (a[1] + b[1]) % P == 0:
            return None
        slope = 3 * a[0] * a[0] * pow(2 * a[1], -1, P) % P
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, P) % P
    x = (slope * slope - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


def multiply(scalar, point):
    result = None
    for bit in bin(scalar % N)[2:]:
        result = add(result, result)
        if bit == "1":
            result = add(result, point)
    return result


def encode_point(point):
    return bytes([2 + point[1] % 2]) + point[0].to_bytes(32, "big")


def decode_point(data):
    x = int.from_bytes(data[1:], "big")
    y = pow(x**3 + 7, (P + 1) // 4, P)
    if y * y % P != (x**3 + 7) % P:
        raise ValueError("not a point of the curve")
    return x, y if y % 2 == data[0] % 2 else P - y


# Protobuf: fields in ascending order, default values omitted.
def varint(number):
    out = bytearray()
    while number >= 0x80:
        out.append(number % 0x80 + 0x80)
        number //= 0x80
    return bytes([*out, number])


def number_field(number, value):
    return varint(number << 3) + varint(value) if value else b""


def bytes_field(number, value, always=False):
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value if value or always else b""


def fields(data):
    """Yield the field number and the value of every field of a message."""
    at = 0

    def read_varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = read_varint()
        value = read_varint()
        if key & 7 == 2:
            at, value = at + value, data[at : at + value]
        yield key >> 3, value


def encode_header(header):
    return (
        bytes_field(1, header["application_address"])
        + bytes_field(2, header["service_id"])
        + bytes_field(3, header["session_id"])
        + number_field(4, header["session_start_block_height"])
        + number_field(5, header["session_end_block_height"])
    )


def encode_http_request(method, url, headers, body):
    """sdk.types.POKTHTTPRequest: the request for the service's backend."""
    encoded = b""
    for name, value in sorted(headers.items()):
        header = bytes_field(1, name) + bytes_field(2, value)
        encoded += bytes_field(2, bytes_field(1, name) + bytes_field(2, header))
    return bytes_field(1, method) + encoded + bytes_field(3, url) + bytes_field(4, body)


def encode_relay_request(header, supplier, payload, signature=b""):
    meta = bytes_field(1, encode_header(header)) + bytes_field(2, signature) + bytes_field(3, supplier)
    return bytes_field(1, meta, always=True) + bytes_field(2, payload)


# Ring signature (bLSAG): proves that one member signed, not which one.
def hash_to_point(point):
    digest = hashlib.sha3_256(encode_point(point)).digest()
    while True:
        try:
            return decode_point(b"\x02" + digest)
        except ValueError:
            digest = hashlib.sha3_256(digest).digest()


def challenge(message, left, right):
    digest = hashlib.sha3_512(message + encode_point(left) + encode_point(right)).digest()
    number = int.from_bytes(digest, "big") % N
    shortest = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return int.from_bytes(shortest.ljust(32, b"\0"), "big")  # left-aligned, as the chain does it


def sign_ring(message, ring, key):
    size, own = len(ring), ring.index(multiply(key, G))
    image = multiply(key, hash_to_point(ring[own]))
    nonce = secrets.randbelow(N - 1) + 1
    scalars, challenges = [0] * size, [0] * size
    challenges[(own + 1) % size] = challenge(message, multiply(nonce, G), multiply(nonce, hash_to_point(ring[own])))
    for step in range(1, size):
        i = (own + step) % size
        scalars[i] = secrets.randbelow(N - 1) + 1
        left = add(multiply(scalars[i], G), multiply(challenges[i], ring[i]))
        right = add(multiply(scalars[i], hash_to_point(ring[i])), multiply(challenges[i], image))
        challenges[(i + 1) % size] = challenge(message, left, right)
    scalars[own] = (nonce - challenges[own] * key) % N
    members = b"".join(s.to_bytes(32, "big") + encode_point(p) for s, p in zip(scalars, ring, strict=True))
    return size.to_bytes(4, "big") + challenges[0].to_bytes(32, "big") + encode_point(image) + members


def verify_ecdsa(public_key, digest, signature):
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if len(signature) != 64 or not 0 < r < N or not 0 < s <= N // 2:
        return False
    inverse = pow(s, -1, N)
    z = int.from_bytes(digest, "big")
    point = add(multiply(z * inverse, G), multiply(r * inverse, public_key))
    return point is not None and point[0] % N == r


def sign_request(session, supplier, key, payload):
    """Return the signed RelayRequest.

    The signed bytes are the request without its signature.
    """
    ring = [decode_point(bytes.fromhex(member)) for member in session["ring"]]
    signable = encode_relay_request(session["header"], supplier, payload)
    signature = sign_ring(hashlib.sha256(signable).digest(), ring, key)
    return encode_relay_request(session["header"], supplier, payload, signature)


def verify_response(session, supplier, data):
    """Return the payload of a RelayResponse, or raise ValueError."""
    meta, payload, error, payload_hash = b"", b"", None, b""
    for number, value in fields(data):
        if number == 1:
            meta = value
        elif number == 2:
            payload = value
        elif number == 3:
            error = value
        elif number == 4:
            payload_hash = value
    header = signature = b""
    for number, value in fields(meta):
        if number == 1:
            header = value
        elif number == 2:
            signature = value
    if header != encode_header(session["header"]):
        raise ValueError("the response is for another session")
    if payload_hash != hashlib.sha256(payload).digest():
        raise ValueError("the payload is not the signed one")
    # The signed bytes are the response without its signature and, since its hash is signed, without its payload.
    signable = bytes_field(1, bytes_field(1, header), always=True)
    signable += b"" if error is None else bytes_field(3, error, always=True)
    signable += bytes_field(4, payload_hash)
    digest = hashlib.sha256(hashlib.sha256(signable).digest()).digest()
    public_key = decode_point(bytes.fromhex(session["suppliers"][supplier]["public_key"]))
    if not verify_ecdsa(public_key, digest, signature):
        raise ValueError("the supplier's signature is invalid")
    return payload


def main():
    session = json.load(open(sys.argv[1], encoding="utf-8"))
    url = sys.argv[2]
    method = sys.argv[3] if len(sys.argv) > 3 else "eth_blockNumber"
    key = int(os.environ["GATEWAY_KEY"], 16)
    supplier = sorted(session["suppliers"])[0]
    call = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": []}).encode()
    payload = encode_http_request("POST", url + "/", {"Content-Type": "application/json"}, call)
    request = sign_request(session, supplier, key, payload)
    try:
        with urlopen(Request(url, data=request, headers={"Rpc-Type": "3"})) as answer:
            payload = verify_response(session, supplier, answer.read())
    except HTTPError as error:
        sys.exit(f"status {error.code}: {error.read().decode(errors='replace')}")
    except URLError as error:
        sys.exit(f"{url}: {error.reason}")
    status = next(value for number, value in fields(payload) if number == 1)
    body = next(value for number, value in fields(payload) if number == 3)
    print(f"status {status}, signed by {supplier}")
    print(body.decode())


if __name__ == "__main__":
    main()
