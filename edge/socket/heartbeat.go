package socket

import (
	"bytes"
	"strconv"

	"github.com/gobwas/ws"

	"github.com/wirepost/wirepost/shared/protocol"
)

// plainHeartbeat is the spelling of nearly every heartbeat, and the answer to it.
const plainHeartbeat = `{"msgType":1}`

// heartbeat answers one, with the newest position if the client does not have it yet.
func (g *gateway) heartbeat(c *Conn) {
	c.k.add(nHeartbeats, 1)
	if !c.has(fMoved) {
		c.k.tmp = append(c.k.tmp[:0], plainHeartbeat...)
		c.send(ws.OpText, c.k.tmp)
		return
	}
	c.drop(fMoved)
	b := append(c.k.tmp[:0], `{"resume":"`...)
	b = c.sess.at.AppendTo(b)
	c.k.tmp = append(b, `","msgType":1}`...)
	c.send(ws.OpText, c.k.tmp)
}

// msgType returns the value of the top-level member "msgType" of a JSON object, -1 if
// there is none, without reading what the object is about: strings are skipped, nesting
// is counted, nothing is decoded, and no byte is looked at twice. A key spelled with
// escapes is not recognized: such a frame is relayed.
//
// Only a frame that is valid JSON is a heartbeat or a login; what is no JSON is relayed,
// so that its sender hears of it.
func msgType(b []byte) int {
	i, ok := findMsgType(b)
	if !ok {
		return -1
	}
	n := integer(b[i:])
	if (n == protocol.Heartbeat || n == protocol.Login) && !validJSON(b) {
		return -1
	}
	return n
}

// findMsgType returns where the value begins.
func findMsgType(b []byte) (at int, ok bool) {
	i := space(b, 0)
	if i >= len(b) || b[i] != '{' {
		return 0, false
	}
	for i++; ; i++ {
		i = space(b, i)
		if i >= len(b) || b[i] != '"' {
			return 0, false
		}
		end := skipString(b, i)
		if end < 0 {
			return 0, false
		}
		found := string(b[i:end]) == `"msgType"`
		if i = space(b, end); i >= len(b) || b[i] != ':' {
			return 0, false
		}
		if i = space(b, i+1); found {
			return i, i < len(b)
		}
		if i = skipValue(b, i); i < 0 {
			return 0, false
		}
		if i = space(b, i); i >= len(b) || b[i] != ',' {
			return 0, false
		}
	}
}

// space returns the first position from i that is no JSON white space.
func space(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}

// skipString returns the position behind the string that starts at i, -1 if it does not
// end.
func skipString(b []byte, i int) int {
	for start := i + 1; ; {
		n := bytes.IndexByte(b[start:], '"')
		if n < 0 {
			return -1
		}
		quote, slash := start+n, start+n
		for slash > start && b[slash-1] == '\\' {
			slash--
		}
		if (quote-slash)%2 == 0 {
			return quote + 1
		}
		start = quote + 1
	}
}

// skipValue returns the position behind the value that starts at i, -1 if there is none.
func skipValue(b []byte, i int) int {
	depth := 0
	for i < len(b) {
		switch b[i] {
		case '"':
			if i = skipString(b, i); i < 0 {
				return -1
			}
			if depth == 0 {
				return i
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
			if depth < 0 {
				return i // of the object around a number, true, false or null
			}
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return i
			}
		}
		i++
	}
	return -1
}

// integer reads a JSON number that is a small whole one, however it is spelled (1, 1.0,
// 10e-1); -1 for every other value.
func integer(b []byte) int {
	n := 0
	for n < len(b) && n < 24 && bytes.IndexByte([]byte("+-.0123456789eE"), b[n]) >= 0 {
		n++
	}
	if n == 1 {
		if d := int(b[0]) - '0'; d >= 0 && d <= 9 {
			return d
		}
		return -1
	}
	f, err := strconv.ParseFloat(string(b[:n]), 64)
	if err != nil || f < 0 || f > 1<<20 || f != float64(int(f)) {
		return -1
	}
	return int(f)
}
