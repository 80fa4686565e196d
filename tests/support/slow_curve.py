"""An independent, slow implementation: affine secp256k1, ring verification, trie, proof verification.

It shares no code with the product and judges both miner and localnet.
"""

import hashlib

P = 2**256 - 2**32 - 977
N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
G = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
)


def add(a, b):
    if a is None:
        return b
    if b is None:
        return a
    if a[0] == b[0]:
        if (a[1] + b[1]) % P == 0:
            return None
        slope = 3 * a[0] * a[0] * pow(2 * a[1], -1, P) % P
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, P) % P
    x = (slope * slope - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


def multiply(k, point):
    k %= N
    result = None
    while k:
        if k & 1:
            result = add(result, point)
        point = add(point, point)
        k >>= 1
    return result


def encode(point):
    if point is None:
        return b"\x02" + bytes(32)
    return bytes([2 + (point[1] & 1)]) + point[0].to_bytes(32, "big")


def decode(data):
    if len(data) != 33 or data[0] not in (2, 3):
        return None
    x = int.from_bytes(data[1:], "big")
    y_squared = (pow(x, 3, P) + 7) % P
    y = pow(y_squared, (P + 1) // 4, P)
    if x >= P or y * y % P != y_squared:
        return None
    return x, (y if y & 1 == data[0] & 1 else P - y)


def hash_to_point(encoded):
    digest = hashlib.sha3_256(encoded).digest()
    while (point := decode(b"\x02" + digest)) is None:
        digest = hashlib.sha3_256(digest).digest()
    return point


def hash_to_scalar(data):
    n = int.from_bytes(hashlib.sha3_512(data).digest(), "big") % N
    shortest = n.to_bytes((n.bit_length() + 7) // 8, "big")
    return int.from_bytes(shortest.ljust(32, b"\0"), "big")


def verify_ring_equation(message, data):
    count = int.from_bytes(data[:4], "big")
    start = current = int.from_bytes(data[4:36], "big") % N
    image = decode(data[36:69])
    for index in range(count):
        at = 69 + 65 * index
        scalar, member = int.from_bytes(data[at : at + 32], "big"), data[at + 32 : at + 65]
        left = add(multiply(scalar, G), multiply(current, decode(member)))
        right = add(multiply(scalar, hash_to_point(member)), multiply(current, image))
        current = hash_to_scalar(message + encode(left) + encode(right))
    return current % N == start


def trie_root(leaves, depth=0):
    """Root of {path: (value, weight)} by recursion over bits, extensions written out."""
    if not leaves:
        return bytes(48)
    if len(leaves) == 1:
        ((path, (value, weight)),) = leaves.items()
        tail = weight.to_bytes(8, "big") + (1).to_bytes(8, "big")
        return hashlib.sha256(b"\x00" + path + value + tail).digest() + tail
    halves = ({}, {})
    for path, leaf in leaves.items():
        halves[path[depth // 8] >> (7 - depth % 8) & 1][path] = leaf
    left, right = (trie_root(half, depth + 1) for half in halves)
    totals = b"".join(
        ((int.from_bytes(left[i : i + 8], "big") + int.from_bytes(right[i : i + 8], "big")) % 2**64).to_bytes(8, "big")
        for i in (32, 40)
    )
    return hashlib.sha256(b"\x01" + left + right + totals).digest() + totals


def ecdsa_holds(public_key, message, signature):
    """64-byte r‖s over SHA-256(message), low s."""
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if not (0 < r < N and 0 < s <= N // 2):
        return False
    digest = int.from_bytes(hashlib.sha256(message).digest(), "big")
    inverse = pow(s, -1, N)
    point = add(multiply(digest * inverse, G), multiply(r * inverse, decode(public_key)))
    return point is not None and point[0] % N == r


def closest_leaf(leaves, path):
    """Return the path of the leaf closest to `path`.

    The descent takes the other side if a side is empty.
    """
    candidates, depth = list(leaves), 0
    while len(candidates) > 1:

        def side(leaf, depth=depth):
            return leaf[depth // 8] >> (7 - depth % 8) & 1

        wanted = side(path)
        chosen = [leaf for leaf in candidates if side(leaf) == wanted]
        candidates = chosen or candidates
        depth += 1
    return candidates[0]
