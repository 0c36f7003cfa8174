package handshake

import (
	"bytes"
	"encoding/base64"
	"strings"

	"github.com/wirepost/wirepost/shared/protocol"
	"github.com/wirepost/wirepost/shared/userid"
)

// Headers that must not come twice, as bits: a proxy and the edge could each believe
// another one.
const (
	seenHost uint16 = 1 << iota
	seenUpgrade
	seenKey
	seenVersion
	seenOrigin
	seenAuthorization
	seenLength
	seenUpgradeToken // Connection holds the token "upgrade"; may come in several lines
)

// header gathers what the lines say. Its slices lie in the request's bytes.
type header struct {
	seen    uint16
	upgrade []byte
	key     []byte
	version []byte
	origin  []byte
	token   []byte
	proto   bool
}

// Read reads a whole request, of the length that Scan.End returned. On a refusal for its
// Origin that origin is returned too, for the log.
func (r *Rules) Read(b []byte) (req Request, origin string, refused *Refusal) {
	line, rest := cutLine(b)
	target, refused := requestLine(line)
	if refused != nil {
		return Request{}, "", refused
	}
	user, refused := r.path(target)
	if refused != nil {
		return Request{}, "", refused
	}
	var h header
	for {
		line, rest = cutLine(rest)
		if len(line) == 0 {
			break
		}
		if refused := h.line(line); refused != nil {
			return Request{}, "", refused
		}
	}
	if refused := h.check(); refused != nil {
		return Request{}, "", refused
	}
	if h.seen&seenOrigin != 0 && !r.Origins.Allow(string(h.origin)) {
		return Request{}, string(h.origin), refuseOrigin
	}
	req = Request{User: user, Token: string(h.token), proto: h.proto}
	copy(req.key[:], h.key)
	return req, "", nil
}

// cutLine returns the first line without its CRLF; Scan has made sure that there is one.
func cutLine(b []byte) (line, rest []byte) {
	i := bytes.IndexByte(b, '\n')
	if i < 1 {
		return nil, nil
	}
	return b[:i-1], b[i+1:]
}

// requestLine: RFC 9112 section 3, with one space between the parts and nothing else.
func requestLine(line []byte) (target []byte, refused *Refusal) {
	method, rest, ok := bytes.Cut(line, []byte(" "))
	target, version, ok2 := bytes.Cut(rest, []byte(" "))
	switch {
	case !ok || !ok2 || !allToken(method) || !bytes.HasPrefix(version, []byte("HTTP/")):
		return nil, refuseNotHTTP
	case string(version) != "HTTP/1.1":
		return nil, malformed("HTTP/1.1 is required")
	case string(method) != "GET":
		return nil, refuseMethod
	case len(target) == 0 || target[0] != '/':
		return nil, malformed("the request target must be a path")
	}
	for _, c := range target {
		if c <= ' ' || c >= 0x7f || c == '#' {
			return nil, malformed("the path holds a byte that must be percent-encoded")
		}
	}
	return target, nil
}

// path takes the user out of <prefix> or <prefix>/<user>. A query is ignored: what
// stands in a URL ends up in logs, so no token is taken from it.
func (r *Rules) path(target []byte) (userid.ID, *Refusal) {
	path, _, _ := strings.Cut(string(target), "?")
	rest, ok := strings.CutPrefix(path, r.Prefix)
	switch {
	case !ok:
		return userid.ID{}, refusePath
	case rest == "":
		return userid.ID{}, nil
	case rest[0] != '/' || rest == "/" || strings.Contains(rest[1:], "/"):
		return userid.ID{}, refusePath
	}
	raw, ok := percentDecode(rest[1:])
	if !ok {
		return userid.ID{}, badUser("the user id in the path is not percent-encoded correctly")
	}
	id, err := userid.Parse(raw)
	if err != nil {
		return userid.ID{}, badUser("the path holds no user id: " + err.Error())
	}
	return id, nil
}

// percentDecode: RFC 3986 section 2.1. A plus sign stands for itself.
func percentDecode(s string) (string, bool) {
	if strings.IndexByte(s, '%') < 0 {
		return s, true
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' {
			if i+2 >= len(s) {
				return "", false
			}
			hi, lo := unhex(s[i+1]), unhex(s[i+2])
			if hi < 0 || lo < 0 {
				return "", false
			}
			c = byte(hi<<4 | lo)
			i += 2
		}
		b = append(b, c)
	}
	return string(b), true
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}

// line takes one header line: RFC 9112 section 5. No space before the colon, no folding.
func (h *header) line(line []byte) *Refusal {
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 || !allToken(line[:colon]) {
		return malformed("a header line has no proper name")
	}
	name, value := line[:colon], bytes.Trim(line[colon+1:], " \t")
	for _, c := range value {
		if c < ' ' && c != '\t' || c == 0x7f {
			return malformed("a header value holds a control character")
		}
	}
	switch {
	case is(name, "host"):
		if !hostLike(value) {
			return malformed("the Host header holds a byte that no host has")
		}
		return h.once(seenHost, &value, value)
	case is(name, "upgrade"):
		if !tokenList(value, "/") {
			return malformed("Upgrade is no list of protocols")
		}
		return h.once(seenUpgrade, &h.upgrade, value)
	case is(name, "connection"):
		if !tokenList(value, "") {
			return malformed("Connection is no list of tokens")
		}
		if listHas(value, "upgrade") {
			h.seen |= seenUpgradeToken
		}
	case is(name, "sec-websocket-key"):
		return h.once(seenKey, &h.key, value)
	case is(name, "sec-websocket-version"):
		return h.once(seenVersion, &h.version, value)
	case is(name, "origin"):
		return h.once(seenOrigin, &h.origin, value)
	case is(name, "authorization"):
		return h.authorization(value)
	case is(name, "sec-websocket-protocol"):
		return h.protocols(value)
	case is(name, "content-length"):
		if string(value) != "0" {
			return malformed("a WebSocket request has no body")
		}
	case is(name, "transfer-encoding"):
		return malformed("a WebSocket request has no body")
	}
	return nil
}

func (h *header) once(bit uint16, field *[]byte, value []byte) *Refusal {
	if h.seen&bit != 0 {
		return malformed("a header that must be unique comes twice")
	}
	h.seen |= bit
	*field = value
	return nil
}

// authorization takes a Bearer token (RFC 6750). Another scheme may belong to a proxy
// and is ignored.
func (h *header) authorization(value []byte) *Refusal {
	if refused := h.once(seenAuthorization, &value, value); refused != nil {
		return refused
	}
	const scheme = "bearer "
	if len(value) <= len(scheme) || !is(value[:len(scheme)], scheme) {
		return nil
	}
	return h.setToken(bytes.TrimLeft(value[len(scheme):], " "))
}

// protocols takes the offered subprotocols: the one spoken here, and the one that is a
// token in disguise, because browsers can set no header.
func (h *header) protocols(value []byte) *Refusal {
	for offer := range bytes.SplitSeq(value, []byte(",")) {
		offer = bytes.Trim(offer, " \t")
		if string(offer) == protocol.Subprotocol {
			h.proto = true
		} else if token, ok := bytes.CutPrefix(offer, []byte(protocol.TokenSubprotocol)); ok {
			if refused := h.setToken(token); refused != nil {
				return refused
			}
		}
	}
	return nil
}

func (h *header) setToken(token []byte) *Refusal {
	if len(token) == 0 {
		return nil
	}
	if h.token != nil && !bytes.Equal(h.token, token) {
		return refuseTokens
	}
	h.token = token
	return nil
}

// check: RFC 6455 section 4.2.1, what must be there.
func (h *header) check() *Refusal {
	switch {
	case h.seen&seenHost == 0:
		return malformed("the Host header is missing")
	case !listHas(h.upgrade, "websocket") || h.seen&seenUpgradeToken == 0:
		return refuseUpgrade
	case string(h.version) != "13":
		return refuseVersion
	case !goodKey(h.key):
		return refuseKey
	}
	return nil
}

func goodKey(key []byte) bool {
	var b [18]byte
	if len(key) != 24 {
		return false
	}
	n, err := base64.StdEncoding.Decode(b[:], key)
	return err == nil && n == 16
}

// listHas reports whether a comma-separated list holds a token, in any case.
func listHas(list []byte, token string) bool {
	for item := range bytes.SplitSeq(list, []byte(",")) {
		if is(bytes.Trim(item, " \t"), token) {
			return true
		}
	}
	return false
}

// tokenList reports whether a comma-separated list (RFC 9110 section 5.6.1) has nothing
// but tokens, of which each may hold the bytes of more, and empty elements.
func tokenList(list []byte, more string) bool {
	for item := range bytes.SplitSeq(list, []byte(",")) {
		for _, c := range bytes.Trim(item, " \t") {
			if !tokenByte(c) && strings.IndexByte(more, c) < 0 {
				return false
			}
		}
	}
	return true
}

// hostLike reports whether a value has the bytes of a host and a port alone: RFC 3986
// section 3.2. RFC 9112 section 3.2 wants anything else refused.
func hostLike(b []byte) bool {
	for _, c := range b {
		switch {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z':
		case strings.IndexByte("-._~!$&'()*+,;=:[]%", c) < 0:
			return false
		}
	}
	return true
}

// is compares in any case; lower is in lower case.
func is(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

func allToken(b []byte) bool {
	for _, c := range b {
		if !tokenByte(c) {
			return false
		}
	}
	return len(b) > 0
}

// tokenByte: RFC 9110 section 5.6.2.
func tokenByte(c byte) bool {
	switch {
	case '0' <= c && c <= '9', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z':
		return true
	}
	return strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}
