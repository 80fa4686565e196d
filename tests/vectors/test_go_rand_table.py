from corpus import load
from pocket.protocol.claims.go_rand import first_int63

TABLE = load("go_rand_table")


def slow_first_int63(seed):
    """Run the whole generator as documented, with all 607 constants (claims-and-proofs.md, section 4)."""
    int32_max = (1 << 31) - 1

    def lehmer(x):
        x = 48271 * (x % 44488) - 3399 * (x // 44488)
        return x + int32_max if x < 0 else x

    x = seed % int32_max if seed >= 0 else -(-seed % int32_max)
    x = x + int32_max if x < 0 else x
    x = x or 89482311
    vector = []
    for index in range(-20, 607):
        x = lehmer(x)
        if index < 0:
            continue
        u = x << 40
        x = lehmer(x)
        u ^= x << 20
        x = lehmer(x)
        vector.append(u ^ x ^ int(TABLE["hex"][index], 16))
    return (vector[333] + vector[606]) % (1 << 64) & ((1 << 63) - 1)


def test_the_table_has_607_constants():
    assert TABLE["length"] == len(TABLE["hex"]) == 607


def test_the_shortcut_with_two_constants_equals_the_whole_generator():
    for seed in [0, 1, -1, 63, -64, 2**31 - 1, 1 - 2**31, 2**63 - 1, -(2**63), *range(-40, 40)]:
        assert first_int63(seed) == slow_first_int63(seed)
