// Sign a relay, send it to a relayer and verify the signed response. Go 1.24 or later, no modules.
//
// Usage: GATEWAY_KEY=<hex> go run . SESSION.json RELAYER_URL [METHOD]
//
// SESSION.json is the output of `relayctl relay session`. The arithmetic is written to be read. It does not run in
// constant time: sign with a maintained library in production.
package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha3"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"os"
	"slices"
	"sort"
)

type session struct {
	Header struct {
		Application string `json:"application_address"`
		Service     string `json:"service_id"`
		ID          string `json:"session_id"`
		Start       uint64 `json:"session_start_block_height"`
		End         uint64 `json:"session_end_block_height"`
	} `json:"header"`
	Ring      []string `json:"ring"`
	Suppliers map[string]struct {
		PublicKey string `json:"public_key"`
	} `json:"suppliers"`
}

// secp256k1. A nil point is the point at infinity.
type point struct{ x, y *big.Int }

func number(text string) *big.Int {
	result, ok := new(big.Int).SetString(text, 16)
	if !ok {
		log.Fatal("not a hexadecimal number")
	}
	return result
}

var (
	p = number("fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f")
	n = number("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141")
	g = &point{
		number("79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"),
		number("483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8"),
	}
)

func mul(a, b, modulus *big.Int) *big.Int { return new(big.Int).Mod(new(big.Int).Mul(a, b), modulus) }
func sub(a, b, modulus *big.Int) *big.Int { return new(big.Int).Mod(new(big.Int).Sub(a, b), modulus) }

func add(a, b *point) *point {
	if a == nil {
		return b
	}
	if b == nil {
		return a
	}
	rise, run := sub(b.y, a.y, p), sub(b.x, a.x, p)
	if run.Sign() == 0 {
		if rise.Sign() != 0 || a.y.Sign() == 0 {
			return nil
		}
		rise, run = mul(big.NewInt(3), mul(a.x, a.x, p), p), mul(big.NewInt(2), a.y, p)
	}
	slope := mul(rise, new(big.Int).ModInverse(run, p), p)
	x := sub(sub(mul(slope, slope, p), a.x, p), b.x, p)
	return &point{x, sub(mul(slope, sub(a.x, x, p), p), a.y, p)}
}

func multiply(scalar *big.Int, a *point) *point {
	var result *point
	reduced := new(big.Int).Mod(scalar, n)
	for bit := reduced.BitLen() - 1; bit >= 0; bit-- {
		result = add(result, result)
		if reduced.Bit(bit) == 1 {
			result = add(result, a)
		}
	}
	return result
}

func encodePoint(a *point) []byte {
	return append([]byte{byte(2 + a.y.Bit(0))}, a.x.FillBytes(make([]byte, 32))...)
}

func decodePoint(data []byte) (*point, error) {
	x := new(big.Int).SetBytes(data[1:])
	square := new(big.Int).Add(mul(x, mul(x, x, p), p), big.NewInt(7))
	y := new(big.Int).ModSqrt(square.Mod(square, p), p)
	if y == nil {
		return nil, errors.New("not a point of the curve")
	}
	if y.Bit(0) != uint(data[0]&1) {
		y = sub(big.NewInt(0), y, p)
	}
	return &point{x, y}, nil
}

func mustPoint(text string) *point {
	data, err := hex.DecodeString(text)
	if err != nil || len(data) != 33 {
		log.Fatal("not a compressed public key")
	}
	result, err := decodePoint(data)
	if err != nil {
		log.Fatal(err)
	}
	return result
}

// Protobuf: fields in ascending order, default values omitted.
func numberField(field, value uint64) []byte {
	if value == 0 {
		return nil
	}
	return binary.AppendUvarint(binary.AppendUvarint(nil, field<<3), value)
}

func messageField(field uint64, value []byte) []byte {
	out := binary.AppendUvarint(binary.AppendUvarint(nil, field<<3|2), uint64(len(value)))
	return append(out, value...)
}

func bytesField(field uint64, value []byte) []byte {
	if len(value) == 0 {
		return nil
	}
	return messageField(field, value)
}

func textField(field uint64, value string) []byte { return bytesField(field, []byte(value)) }

type message struct {
	numbers map[uint64]uint64
	bytes   map[uint64][]byte
}

func decode(data []byte) (message, error) {
	out := message{map[uint64]uint64{}, map[uint64][]byte{}}
	for len(data) > 0 {
		key, size := binary.Uvarint(data)
		if size <= 0 {
			return out, errors.New("invalid message")
		}
		data = data[size:]
		value, size := binary.Uvarint(data)
		if size <= 0 {
			return out, errors.New("invalid message")
		}
		data = data[size:]
		if key&7 != 2 {
			out.numbers[key>>3] = value
			continue
		}
		if value > uint64(len(data)) {
			return out, errors.New("invalid message")
		}
		out.bytes[key>>3], data = data[:value], data[value:]
	}
	return out, nil
}

func encodeHeader(s *session) []byte {
	return slices.Concat(
		textField(1, s.Header.Application), textField(2, s.Header.Service), textField(3, s.Header.ID),
		numberField(4, s.Header.Start), numberField(5, s.Header.End),
	)
}

// encodeHTTPRequest returns sdk.types.POKTHTTPRequest: the request for the service's backend.
func encodeHTTPRequest(method, url, contentType string, body []byte) []byte {
	header := slices.Concat(textField(1, "Content-Type"), textField(2, contentType))
	entry := slices.Concat(textField(1, "Content-Type"), bytesField(2, header))
	return slices.Concat(textField(1, method), bytesField(2, entry), textField(3, url), bytesField(4, body))
}

func encodeRelayRequest(s *session, supplier string, payload, signature []byte) []byte {
	meta := slices.Concat(bytesField(1, encodeHeader(s)), bytesField(2, signature), textField(3, supplier))
	return slices.Concat(messageField(1, meta), bytesField(2, payload))
}

// hashToPoint and challenge are those of the ring signature (bLSAG), which proves that one member signed, not which one.
func hashToPoint(a *point) *point {
	digest := sha3.Sum256(encodePoint(a))
	for {
		if found, err := decodePoint(append([]byte{2}, digest[:]...)); err == nil {
			return found
		}
		digest = sha3.Sum256(digest[:])
	}
}

func challenge(message []byte, left, right *point) *big.Int {
	digest := sha3.Sum512(slices.Concat(message, encodePoint(left), encodePoint(right)))
	reduced := new(big.Int).Mod(new(big.Int).SetBytes(digest[:]), n)
	aligned := make([]byte, 32) // left-aligned, as the chain does it
	copy(aligned, reduced.Bytes())
	return new(big.Int).SetBytes(aligned)
}

func randomScalar() *big.Int {
	for {
		scalar, err := rand.Int(rand.Reader, n)
		if err != nil {
			log.Fatal(err)
		}
		if scalar.Sign() > 0 {
			return scalar
		}
	}
}

func signRing(message []byte, ring []*point, key *big.Int) []byte {
	size, own := len(ring), -1
	publicKey := multiply(key, g)
	for i, member := range ring {
		if own < 0 && bytes.Equal(encodePoint(member), encodePoint(publicKey)) {
			own = i
		}
	}
	if own < 0 {
		log.Fatal("the key is no member of the ring")
	}
	image, nonce := multiply(key, hashToPoint(ring[own])), randomScalar()
	scalars, challenges := make([]*big.Int, size), make([]*big.Int, size)
	challenges[(own+1)%size] = challenge(message, multiply(nonce, g), multiply(nonce, hashToPoint(ring[own])))
	for step := 1; step < size; step++ {
		i := (own + step) % size
		scalars[i] = randomScalar()
		left := add(multiply(scalars[i], g), multiply(challenges[i], ring[i]))
		right := add(multiply(scalars[i], hashToPoint(ring[i])), multiply(challenges[i], image))
		challenges[(i+1)%size] = challenge(message, left, right)
	}
	scalars[own] = sub(nonce, mul(challenges[own], key, n), n)
	out := binary.BigEndian.AppendUint32(nil, uint32(size))
	out = append(out, challenges[0].FillBytes(make([]byte, 32))...)
	out = append(out, encodePoint(image)...)
	for i, member := range ring {
		out = append(out, scalars[i].FillBytes(make([]byte, 32))...)
		out = append(out, encodePoint(member)...)
	}
	return out
}

func verifyECDSA(publicKey *point, digest, signature []byte) bool {
	if len(signature) != 64 {
		return false
	}
	r, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
	half := new(big.Int).Rsh(n, 1)
	if r.Sign() == 0 || r.Cmp(n) >= 0 || s.Sign() == 0 || s.Cmp(half) > 0 {
		return false
	}
	inverse := new(big.Int).ModInverse(s, n)
	first := multiply(mul(new(big.Int).SetBytes(digest), inverse, n), g)
	found := add(first, multiply(mul(r, inverse, n), publicKey))
	return found != nil && new(big.Int).Mod(found.x, n).Cmp(r) == 0
}

// signRequest returns the signed RelayRequest. The signed bytes are the request without its signature.
func signRequest(s *session, supplier string, key *big.Int, payload []byte) []byte {
	ring := make([]*point, len(s.Ring))
	for i, member := range s.Ring {
		ring[i] = mustPoint(member)
	}
	hash := sha256.Sum256(encodeRelayRequest(s, supplier, payload, nil))
	return encodeRelayRequest(s, supplier, payload, signRing(hash[:], ring, key))
}

// verifyResponse returns the payload of a RelayResponse.
func verifyResponse(s *session, supplier string, data []byte) ([]byte, error) {
	response, err := decode(data)
	if err != nil {
		return nil, err
	}
	meta, err := decode(response.bytes[1])
	if err != nil {
		return nil, err
	}
	header, payload := meta.bytes[1], response.bytes[2]
	if !bytes.Equal(header, encodeHeader(s)) {
		return nil, errors.New("the response is for another session")
	}
	if hash := sha256.Sum256(payload); !bytes.Equal(response.bytes[4], hash[:]) {
		return nil, errors.New("the payload is not the signed one")
	}
	// The signed bytes are the response without its signature and, since its hash is signed, without its payload.
	signable := messageField(1, bytesField(1, header))
	if failure, present := response.bytes[3]; present {
		signable = append(signable, messageField(3, failure)...)
	}
	signable = append(signable, bytesField(4, response.bytes[4])...)
	hash := sha256.Sum256(signable)
	digest := sha256.Sum256(hash[:])
	if !verifyECDSA(mustPoint(s.Suppliers[supplier].PublicKey), digest[:], meta.bytes[2]) {
		return nil, errors.New("the supplier's signature is invalid")
	}
	return payload, nil
}

func run(file, url, method string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var s session
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	suppliers := make([]string, 0, len(s.Suppliers))
	for address := range s.Suppliers {
		suppliers = append(suppliers, address)
	}
	sort.Strings(suppliers)
	supplier := suppliers[0]
	call, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": 1, "method": method, "params": []any{}})
	if err != nil {
		return err
	}
	payload := encodeHTTPRequest("POST", url+"/", "application/json", call)
	body := signRequest(&s, supplier, number(os.Getenv("GATEWAY_KEY")), payload)
	request, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Rpc-Type", "3")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d: %s", answer.StatusCode, data)
	}
	verified, err := verifyResponse(&s, supplier, data)
	if err != nil {
		return err
	}
	response, err := decode(verified)
	if err != nil {
		return err
	}
	fmt.Printf("status %d, signed by %s\n%s\n", response.numbers[1], supplier, response.bytes[3])
	return nil
}

func main() {
	if len(os.Args) < 3 {
		log.Fatal("usage: GATEWAY_KEY=<hex> go run . SESSION.json RELAYER_URL [METHOD]")
	}
	method := "eth_blockNumber"
	if len(os.Args) > 3 {
		method = os.Args[3]
	}
	if err := run(os.Args[1], os.Args[2], method); err != nil {
		log.Fatal(err)
	}
}
