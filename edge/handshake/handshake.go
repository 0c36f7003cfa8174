// Package handshake reads the HTTP/1.1 request that opens a WebSocket (RFC 6455 section
// 4.2) out of memory, step by step as bytes arrive, and writes its answer.
//
// It is strict, because a request that two programs read differently is an attack: GET
// and HTTP/1.1 only, CRLF only, no folded lines, no body, no critical header twice, at
// most MaxBytes and MaxHeaders. It never reads from a socket, never waits, keeps no
// bytes (what follows the request is the caller's), never looks at a token, never takes
// one from the URL, and never negotiates an extension.
package handshake

import (
	"bytes"

	"github.com/wirepost/wirepost/shared/userid"
)

// Limits of a request, its empty line included.
const (
	MaxBytes   = 8 << 10
	MaxHeaders = 64
)

// Rules is what a request is held to. It is read only; any goroutine may use it.
type Rules struct {
	// Prefix is the path of the socket, "/ws" or for instance "/trtc/websocket": it is
	// served itself and with one user id behind it.
	Prefix string
	// Origins are the web pages that may connect.
	Origins Origins
	// Proxies are believed when they say who the client is.
	Proxies Proxies
}

// Request is an accepted request. It holds no reference to the bytes it was read from.
type Request struct {
	User  userid.ID // of the path; zero: none
	Token string    // "" for none; from Authorization or the subprotocol
	proto bool      // the subprotocol was offered, so it is answered
	key   [24]byte  // Sec-WebSocket-Key
}

// Scan finds the end of a request while its bytes arrive. The zero Scan is ready. Each
// byte is looked at once, however small the steps are.
type Scan struct {
	at    int // bytes looked at
	line  int // start of the current line
	lines int // whole lines
}

// End takes everything that arrived so far and returns the length of the request, 0
// while it is not complete, or the Refusal that is already certain.
func (s *Scan) End(b []byte) (int, *Refusal) {
	if s.at == 0 && len(b) > 0 && !tokenByte(b[0]) {
		return 0, refuseNotHTTP // a TLS hello, for instance
	}
	for {
		i := bytes.IndexByte(b[s.at:min(len(b), MaxBytes)], '\n')
		if i < 0 {
			s.at = min(len(b), MaxBytes)
			break
		}
		end := s.at + i
		if end == s.line || b[end-1] != '\r' {
			return 0, refuseLineEnd
		}
		s.at = end + 1
		switch {
		case end == s.line+1 && s.lines == 0:
			return 0, refuseNotHTTP
		case end == s.line+1:
			return s.at, nil
		case s.lines > MaxHeaders:
			return 0, refuseHeaders
		}
		s.lines++
		s.line = s.at
	}
	if s.at >= MaxBytes {
		return 0, refuseSize
	}
	return 0, nil
}

// Started reports whether any byte was looked at.
func (s *Scan) Started() bool { return s.at > 0 }
