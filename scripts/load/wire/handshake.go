package wire

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"
)

const (
	keyGUID     = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" // RFC 6455 section 1.3
	maxResponse = 16 << 10
)

var (
	// ErrHandshake is in End.Err when the server's answer opens no WebSocket.
	ErrHandshake = errors.New("handshake refused")
	errTimeout   = errors.New("not open in time")
)

// key appends the value of Sec-WebSocket-Key. Only half of its 16 bytes are stored.
func (n *Conn) key(b []byte) []byte {
	var nonce [16]byte
	binary.LittleEndian.PutUint64(nonce[:], n.nonce)
	binary.LittleEndian.PutUint64(nonce[8:], n.nonce*0x9E3779B97F4A7C15)
	return base64.StdEncoding.AppendEncode(b, nonce[:])
}

// request sends the handshake.
func (n *Conn) request() {
	c := n.client
	n.state, n.nonce = handshaking, rand.Uint64()
	t := &c.opt.Targets[n.to]
	b := append(c.frame[:0], "GET "...)
	b = append(b, t.path...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, t.host...)
	b = append(b, "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "...)
	b = append(n.key(b), "\r\n"...)
	b = append(c.handler.Header(n, b), "\r\n"...)
	c.frame = b[:0]
	n.write(b)
}

// response looks at what has come of the server's answer. It returns what follows the
// answer, and whether the answer is whole. The connection may have ended then.
func (n *Conn) response(b []byte) (rest []byte, whole bool) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		if len(b) > maxResponse {
			n.end(End{Code: 1006, Err: fmt.Errorf("%w: endless answer", ErrHandshake)})
		}
		return b, false
	}
	head := b[:end+2]
	status, _ := strconv.Atoi(string(head[min(9, len(head)):min(12, len(head))])) // HTTP/1.1 101
	if status != 101 {
		after, _ := strconv.Atoi(string(field(head, "retry-after")))
		n.end(End{Code: 1006, Status: status, RetryAfter: time.Duration(after) * time.Second,
			Err: fmt.Errorf("%w: status %d", ErrHandshake, status)})
		return nil, true
	}
	var keys [64]byte
	sum := sha1.Sum(append(n.key(keys[:0]), keyGUID...))
	if want := base64.StdEncoding.AppendEncode(keys[:0], sum[:]); !bytes.Equal(want, field(head, "sec-websocket-accept")) {
		n.end(End{Code: 1006, Status: status, Err: fmt.Errorf("%w: wrong Sec-WebSocket-Accept", ErrHandshake)})
		return nil, true
	}
	n.state = open
	n.client.counts.Opening--
	n.client.counts.Open++
	n.client.wheel.remove(n.slot)
	n.client.handler.Opened(n)
	return b[end+4:], true
}

// field returns the value of a header line, nil if there is none. name is lower case.
func field(head []byte, name string) []byte {
	for line := range bytes.SplitSeq(head, []byte("\r\n")) {
		if k, v, ok := bytes.Cut(line, []byte(":")); ok && len(k) == len(name) && bytes.EqualFold(k, []byte(name)) {
			return bytes.TrimSpace(v)
		}
	}
	return nil
}
