package feed

import (
	"bytes"
	"errors"
)

// Bounds of what a server may send in one operation.
const (
	maxLine    = 32 << 10 // its control line; an INFO that names a thousand servers fits
	maxMessage = 8 << 20  // headers and payload: what nats-server recommends as the largest
)

var (
	errLine    = errors.New("feed: control line is too long")
	errArgs    = errors.New("feed: message with a malformed control line")
	errSize    = errors.New("feed: message is too large")
	errPayload = errors.New("feed: message does not end where it should")
)

// Frame is a message of one of our subscriptions. Its slices point into its batch.
type Frame struct {
	Subject []byte
	Header  []byte // the block as it came, see Fields; empty: none
	Data    []byte
}

// opKind is what an operation is to us.
type opKind uint8

const (
	opOther opKind = iota // nats.go's
	opPong                // nats.go's too
	opFrame               // ours
)

// next reads the operation at the start of b; n is its length. While it is not whole, n is
// 0 and need says how long it will be, 0 if that is not known. The frame, of opFrame,
// points into b.
func next(b []byte) (f Frame, kind opKind, n, need int, err error) {
	end := bytes.IndexByte(b[:min(len(b), maxLine)], '\n')
	if end < 0 {
		if len(b) >= maxLine {
			err = errLine
		}
		return f, opOther, 0, 0, err
	}
	line, n := bytes.TrimSuffix(b[:end], []byte("\r")), end+1
	verb, args, _ := bytes.Cut(line, []byte(" "))
	switch {
	case bytes.EqualFold(verb, []byte("HMSG")):
		return message(b, n, args, true)
	case bytes.EqualFold(verb, []byte("MSG")):
		return message(b, n, args, false)
	case bytes.EqualFold(verb, []byte("PONG")):
		return f, opPong, n, 0, nil
	}
	return f, opOther, n, 0, nil
}

// message reads the rest of
//
//	MSG  <subject> <sid> [reply-to] <size>
//	HMSG <subject> <sid> [reply-to] <header size> <size with headers>
//
// whose control line ends at b[at].
func message(b []byte, at int, args []byte, headers bool) (f Frame, kind opKind, n, need int, err error) {
	fields := 3
	if headers {
		fields = 4
	}
	var arg [5][]byte
	count := split(args, &arg)
	if count != fields && count != fields+1 {
		return f, opOther, 0, 0, errArgs
	}
	size, ok := decimal(arg[count-1])
	head, ok2 := 0, true
	if headers {
		head, ok2 = decimal(arg[count-2])
	}
	switch {
	case !ok || !ok2 || head > size:
		return f, opOther, 0, 0, errArgs
	case size > maxMessage:
		return f, opOther, 0, 0, errSize
	}
	n = at + size + len("\r\n")
	if len(b) < n {
		return f, opOther, 0, n, nil
	}
	if b[n-2] != '\r' || b[n-1] != '\n' {
		return f, opOther, 0, 0, errPayload
	}
	if arg[1][0] != sidLetter {
		return f, opOther, n, 0, nil
	}
	return Frame{Subject: arg[0], Header: b[at : at+head], Data: b[at+head : at+size]}, opFrame, n, 0, nil
}

// split cuts s at its spaces. It returns how many parts there are, one more than fit when
// there are more.
func split(s []byte, parts *[5][]byte) int {
	n := 0
	for {
		for len(s) > 0 && s[0] == ' ' {
			s = s[1:]
		}
		if len(s) == 0 {
			return n
		}
		if n == len(parts) {
			return n + 1
		}
		end := bytes.IndexByte(s, ' ')
		if end < 0 {
			end = len(s)
		}
		parts[n] = s[:end]
		s = s[end:]
		n++
	}
}

// decimal reads a size of at most nine digits.
func decimal(s []byte) (n int, ok bool) {
	if len(s) == 0 || len(s) > 9 {
		return 0, false
	}
	for _, c := range s {
		if c < '0' || '9' < c {
			return 0, false
		}
		n = 10*n + int(c-'0')
	}
	return n, true
}
