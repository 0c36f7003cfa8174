package handshake

import (
	"math/rand/v2"
	"net/http"
	"strconv"
)

// Reason names why a request was refused: a closed set, one counter each.
type Reason string

// Reasons of a refusal.
const (
	ReasonMalformed   Reason = "malformed" // no strict HTTP/1.1 request
	ReasonMethod      Reason = "method"
	ReasonPath        Reason = "path"
	ReasonUser        Reason = "user" // the path holds no user id
	ReasonUpgrade     Reason = "upgrade"
	ReasonVersion     Reason = "version"
	ReasonKey         Reason = "key"
	ReasonTooLarge    Reason = "too_large"
	ReasonOrigin      Reason = "origin"
	ReasonToken       Reason = "token"
	ReasonTimeout     Reason = "timeout"
	ReasonConnections Reason = "connections" // all places are taken
	ReasonArriving    Reason = "arriving"    // too many in the handshake or the login
	ReasonLogins      Reason = "logins"      // logins are not done in time
	ReasonMemory      Reason = "memory"
	ReasonDraining    Reason = "draining"
	ReasonAddress     Reason = "address" // too many attempts from one address
	ReasonProxy       Reason = "proxy"   // no header of the PROXY protocol from a trusted proxy
)

// Reasons lists every Reason.
func Reasons() []Reason {
	return []Reason{ReasonMalformed, ReasonMethod, ReasonPath, ReasonUser, ReasonUpgrade, ReasonVersion, ReasonKey,
		ReasonTooLarge, ReasonOrigin, ReasonToken, ReasonTimeout, ReasonConnections, ReasonArriving, ReasonLogins, ReasonMemory, ReasonDraining,
		ReasonAddress, ReasonProxy}
}

// Refusal is the answer to a request that is not accepted.
type Refusal struct {
	Status int
	Reason Reason
	Text   string // one line for the person who reads it
	extra  string // header lines
	retry  int    // Retry-After is a random number of seconds up to it; 0: none
}

func (r *Refusal) Error() string { return r.Text }

// The refusals that every connection shares.
var (
	refuseNotHTTP = malformed("this is not HTTP/1.1: the edge speaks plain WebSocket (ws://), TLS ends at the load balancer")
	refuseLineEnd = malformed("lines must end with CRLF")
	refuseHeaders = &Refusal{Status: http.StatusRequestHeaderFieldsTooLarge, Reason: ReasonTooLarge,
		Text: "more than " + strconv.Itoa(MaxHeaders) + " header lines"}
	refuseSize = &Refusal{Status: http.StatusRequestHeaderFieldsTooLarge, Reason: ReasonTooLarge,
		Text: "the request is larger than " + strconv.Itoa(MaxBytes) + " bytes"}
	refuseMethod = &Refusal{Status: http.StatusMethodNotAllowed, Reason: ReasonMethod,
		Text: "a WebSocket is opened with GET", extra: "Allow: GET\r\n"}
	refuseUpgrade = &Refusal{Status: http.StatusUpgradeRequired, Reason: ReasonUpgrade,
		Text: "this address is a WebSocket: send Upgrade: websocket and Connection: Upgrade", extra: "Upgrade: websocket\r\n"}
	refuseVersion = &Refusal{Status: http.StatusUpgradeRequired, Reason: ReasonVersion,
		Text: "Sec-WebSocket-Version must be 13", extra: "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"}
	refuseKey = &Refusal{Status: http.StatusBadRequest, Reason: ReasonKey,
		Text: "Sec-WebSocket-Key must be 16 bytes in base64"}
	refuseOrigin = &Refusal{Status: http.StatusForbidden, Reason: ReasonOrigin,
		Text: "this Origin may not connect"}
	refuseTokens = &Refusal{Status: http.StatusBadRequest, Reason: ReasonToken,
		Text: "the request carries more than one token"}
	refusePath = &Refusal{Status: http.StatusNotFound, Reason: ReasonPath,
		Text: "no WebSocket here"}

	// RefuseTimeout is the answer to a request that does not arrive in time.
	RefuseTimeout = &Refusal{Status: http.StatusRequestTimeout, Reason: ReasonTimeout,
		Text: "the request took too long"}
	// RefuseConnections is the answer while the edge holds as many connections as it may.
	RefuseConnections = busy(ReasonConnections, "too many connections, try again", 10)
	// RefuseArriving is the answer while too many connections are in the handshake or the
	// login. Those are done in seconds.
	RefuseArriving = busy(ReasonArriving, "too many connections at once, try again", 5)
	// RefuseLogins is the answer while those who are there wait too long for their login.
	RefuseLogins = busy(ReasonLogins, "logins take too long now, try again", 2)
	// RefuseMemory is the answer while the edge is short of memory.
	RefuseMemory = busy(ReasonMemory, "this edge is short of memory, try again", 10)
	// RefuseDraining is the answer while the edge goes away: another one is there at once.
	RefuseDraining = busy(ReasonDraining, "this edge goes away, try again", 1)
	// RefuseAddress is the answer to a client whose address connects too often. Its load
	// balancer must not try another edge for it, hence no 503.
	RefuseAddress = &Refusal{Status: http.StatusTooManyRequests, Reason: ReasonAddress,
		Text: "too many connections from your address, try again", retry: 10}
	// RefuseStranger is the answer of a listener of proxies to everybody else.
	RefuseStranger = &Refusal{Status: http.StatusForbidden, Reason: ReasonProxy,
		Text: "only load balancers connect here"}
	// RefuseHeader is the answer to a proxy without a proper header.
	RefuseHeader = &Refusal{Status: http.StatusBadRequest, Reason: ReasonProxy,
		Text: "a connection must begin with a header of the PROXY protocol, version 2"}
)

func malformed(text string) *Refusal {
	return &Refusal{Status: http.StatusBadRequest, Reason: ReasonMalformed, Text: text}
}

// busy is a refusal that a later try does not meet. Who is refused together comes back
// spread over retry seconds.
func busy(reason Reason, text string, retry int) *Refusal {
	return &Refusal{Status: http.StatusServiceUnavailable, Reason: reason, Text: text, retry: retry}
}

func badUser(text string) *Refusal {
	return &Refusal{Status: http.StatusBadRequest, Reason: ReasonUser, Text: text}
}

// Append appends the whole HTTP answer to b. The connection ends after it.
func (r *Refusal) Append(b []byte) []byte {
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(r.Status), 10)
	b = append(b, ' ')
	b = append(b, http.StatusText(r.Status)...)
	b = append(b, "\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n"...)
	b = append(b, r.extra...)
	if r.retry > 0 {
		b = append(b, "Retry-After: "...)
		b = strconv.AppendInt(b, 1+rand.Int64N(int64(r.retry)), 10)
		b = append(b, "\r\n"...)
	}
	b = append(b, "Content-Length: "...)
	b = strconv.AppendInt(b, int64(len(r.Text)+1), 10)
	b = append(b, "\r\n\r\n"...)
	b = append(b, r.Text...)
	return append(b, '\n')
}
