// Sign a relay, send it to a relayer and verify the signed response. Node.js 20 or later, no packages.
//
// Usage: GATEWAY_KEY=<hex> node relay.mjs SESSION.json RELAYER_URL [METHOD]
//
// SESSION.json is the output of `relayctl relay session`. The arithmetic is written to be read. It does not run in
// constant time: sign with a maintained library in production.

import { createHash, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";

// secp256k1. A point is [x, y], null is the point at infinity.
const P = 2n ** 256n - 2n ** 32n - 977n;
const N = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
const G = [
  0x79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798n,
  0x483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8n,
];

const mod = (a, m) => ((a % m) + m) % m;

function power(base, exponent, modulus) {
  let result = 1n;
  for (base = mod(base, modulus); exponent; exponent >>= 1n, base = (base * base) % modulus)
    if (exponent & 1n) result = (result * base) % modulus;
  return result;
}

const invert = (a, m) => power(a, m - 2n, m); // m is prime

function add(a, b) {
  if (!a || !b) return a || b;
  let slope;
  if (a[0] === b[0]) {
    if (mod(a[1] + b[1], P) === 0n) return null;
    slope = 3n * a[0] * a[0] * invert(2n * a[1], P);
  } else {
    slope = (b[1] - a[1]) * invert(b[0] - a[0], P);
  }
  const x = mod(slope * slope - a[0] - b[0], P);
  return [x, mod(slope * (a[0] - x) - a[1], P)];
}

function multiply(scalar, point) {
  let result = null;
  for (const bit of mod(scalar, N).toString(2)) {
    result = add(result, result);
    if (bit === "1") result = add(result, point);
  }
  return result;
}

const toNumber = (bytes) => (bytes.length ? BigInt("0x" + Buffer.from(bytes).toString("hex")) : 0n);
const toBytes = (number, size) => Buffer.from(number.toString(16).padStart(size * 2, "0"), "hex");
const encodePoint = (point) => Buffer.concat([Buffer.from([point[1] & 1n ? 3 : 2]), toBytes(point[0], 32)]);

function decodePoint(bytes) {
  const x = toNumber(bytes.subarray(1));
  const square = mod(x ** 3n + 7n, P);
  const y = power(square, (P + 1n) / 4n, P);
  if ((y * y) % P !== square) return undefined;
  return [x, (y & 1n) === BigInt(bytes[0] & 1) ? y : P - y];
}

const hash = (name, ...parts) => createHash(name).update(Buffer.concat(parts)).digest();

// Protobuf: fields in ascending order, default values omitted.
function varint(number) {
  const out = [];
  for (; number >= 0x80; number = Math.floor(number / 0x80)) out.push((number % 0x80) + 0x80);
  return Buffer.from([...out, number]);
}

const numberField = (number, value) => (value ? Buffer.concat([varint(number << 3), varint(value)]) : Buffer.alloc(0));

function bytesField(number, value, always = false) {
  const bytes = Buffer.from(value);
  if (!bytes.length && !always) return bytes;
  return Buffer.concat([varint((number << 3) | 2), varint(bytes.length), bytes]);
}

// Returns [field number, value] of every field of a message.
function fields(data) {
  const out = [];
  let at = 0;
  const readVarint = () => {
    let value = 0;
    for (let factor = 1; ; factor *= 0x80) {
      const byte = data[at++];
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
    }
  };
  while (at < data.length) {
    const key = readVarint();
    let value = readVarint();
    if ((key & 7) === 2) value = data.subarray(at, (at += value));
    out.push([key >> 3, value]);
  }
  return out;
}

const field = (data, number) => fields(data).findLast(([found]) => found === number)?.[1];

const encodeHeader = (header) =>
  Buffer.concat([
    bytesField(1, header.application_address),
    bytesField(2, header.service_id),
    bytesField(3, header.session_id),
    numberField(4, header.session_start_block_height),
    numberField(5, header.session_end_block_height),
  ]);

// sdk.types.POKTHTTPRequest: the request for the service's backend.
function encodeHttpRequest(method, url, headers, body) {
  const encoded = Object.keys(headers)
    .sort()
    .map((name) => {
      const header = Buffer.concat([bytesField(1, name), bytesField(2, headers[name])]);
      return bytesField(2, Buffer.concat([bytesField(1, name), bytesField(2, header)]));
    });
  return Buffer.concat([bytesField(1, method), ...encoded, bytesField(3, url), bytesField(4, body)]);
}

function encodeRelayRequest(header, supplier, payload, signature = "") {
  const meta = [bytesField(1, encodeHeader(header)), bytesField(2, signature), bytesField(3, supplier)];
  return Buffer.concat([bytesField(1, Buffer.concat(meta), true), bytesField(2, payload)]);
}

// Ring signature (bLSAG): proves that one member signed, not which one.
function hashToPoint(point) {
  for (let digest = hash("sha3-256", encodePoint(point)); ; digest = hash("sha3-256", digest)) {
    const found = decodePoint(Buffer.concat([Buffer.from([2]), digest]));
    if (found) return found;
  }
}

function challenge(message, left, right) {
  const number = toNumber(hash("sha3-512", message, encodePoint(left), encodePoint(right))) % N;
  const hex = number.toString(16);
  const shortest = hex.padStart(hex.length + (hex.length % 2), "0");
  return BigInt("0x" + shortest.padEnd(64, "0")); // left-aligned, as the chain does it
}

const randomScalar = () => (toNumber(randomBytes(48)) % (N - 1n)) + 1n;

function signRing(message, ring, key) {
  const size = ring.length;
  const publicKey = multiply(key, G);
  const own = ring.findIndex((member) => member[0] === publicKey[0] && member[1] === publicKey[1]);
  if (own < 0) throw new Error("the key is no member of the ring");
  const image = multiply(key, hashToPoint(ring[own]));
  const nonce = randomScalar();
  const scalars = new Array(size);
  const challenges = new Array(size);
  challenges[(own + 1) % size] = challenge(message, multiply(nonce, G), multiply(nonce, hashToPoint(ring[own])));
  for (let step = 1; step < size; step++) {
    const i = (own + step) % size;
    scalars[i] = randomScalar();
    const left = add(multiply(scalars[i], G), multiply(challenges[i], ring[i]));
    const right = add(multiply(scalars[i], hashToPoint(ring[i])), multiply(challenges[i], image));
    challenges[(i + 1) % size] = challenge(message, left, right);
  }
  scalars[own] = mod(nonce - challenges[own] * key, N);
  const count = Buffer.alloc(4);
  count.writeUInt32BE(size);
  const members = ring.map((point, i) => Buffer.concat([toBytes(scalars[i], 32), encodePoint(point)]));
  return Buffer.concat([count, toBytes(challenges[0], 32), encodePoint(image), ...members]);
}

function verifyEcdsa(publicKey, digest, signature) {
  const r = toNumber(signature.subarray(0, 32));
  const s = toNumber(signature.subarray(32));
  if (signature.length !== 64 || r <= 0n || r >= N || s <= 0n || s > N / 2n) return false;
  const inverse = invert(s, N);
  const point = add(multiply(toNumber(digest) * inverse, G), multiply(r * inverse, publicKey));
  return point !== null && mod(point[0], N) === r;
}

// Returns the signed RelayRequest. The signed bytes are the request without its signature.
function signRequest(session, supplier, key, payload) {
  const ring = session.ring.map((member) => decodePoint(Buffer.from(member, "hex")));
  const signable = encodeRelayRequest(session.header, supplier, payload);
  return encodeRelayRequest(session.header, supplier, payload, signRing(hash("sha256", signable), ring, key));
}

// Returns the payload of a RelayResponse, or throws.
function verifyResponse(session, supplier, data) {
  const empty = Buffer.alloc(0);
  const meta = field(data, 1) ?? empty;
  const payload = field(data, 2) ?? empty;
  const error = field(data, 3);
  const payloadHash = field(data, 4) ?? empty;
  const header = field(meta, 1) ?? empty;
  if (!header.equals(encodeHeader(session.header))) throw new Error("the response is for another session");
  if (!payloadHash.equals(hash("sha256", payload))) throw new Error("the payload is not the signed one");
  // The signed bytes are the response without its signature and, since its hash is signed, without its payload.
  const signable = Buffer.concat([
    bytesField(1, bytesField(1, header), true),
    error === undefined ? empty : bytesField(3, error, true),
    bytesField(4, payloadHash),
  ]);
  const publicKey = decodePoint(Buffer.from(session.suppliers[supplier].public_key, "hex"));
  if (!verifyEcdsa(publicKey, hash("sha256", hash("sha256", signable)), field(meta, 2) ?? empty))
    throw new Error("the supplier's signature is invalid");
  return payload;
}

const [sessionFile, url, method = "eth_blockNumber"] = process.argv.slice(2);
const session = JSON.parse(readFileSync(sessionFile, "utf8"));
const supplier = Object.keys(session.suppliers).sort()[0];
const call = JSON.stringify({ jsonrpc: "2.0", id: 1, method, params: [] });
const payload = encodeHttpRequest("POST", url + "/", { "Content-Type": "application/json" }, call);
const request = signRequest(session, supplier, BigInt("0x" + process.env.GATEWAY_KEY), payload);
const answer = await fetch(url, { method: "POST", body: request, headers: { "Rpc-Type": "3" } }).catch((error) => {
  console.error(`${url}: ${error.cause ?? error.message}`);
  process.exit(1);
});
const body = Buffer.from(await answer.arrayBuffer());
if (answer.status !== 200) {
  console.error(`status ${answer.status}: ${body}`);
  process.exit(1);
}
const response = verifyResponse(session, supplier, body);
console.log(`status ${field(response, 1)}, signed by ${supplier}`);
console.log(field(response, 3).toString());
