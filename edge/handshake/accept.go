package handshake

import (
	"crypto/sha1" //nolint:gosec // RFC 6455 section 1.3 asks for it; it guards nothing
	"encoding/base64"

	"github.com/wirepost/wirepost/shared/protocol"
)

// magic: RFC 6455 section 1.3.
const magic = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// Append appends the answer that opens the WebSocket to b. A token among the offered
// subprotocols is never answered; im.json.v1 is if it was offered.
func (r *Request) Append(b []byte) []byte {
	b = append(b, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "...)
	var in [len(r.key) + len(magic)]byte
	copy(in[copy(in[:], r.key[:]):], magic)
	sum := sha1.Sum(in[:]) //nolint:gosec // see above
	b = base64.StdEncoding.AppendEncode(b, sum[:])
	if r.proto {
		b = append(b, "\r\nSec-WebSocket-Protocol: "+protocol.Subprotocol...)
	}
	return append(b, "\r\n\r\n"...)
}
