package socket

import (
	"bytes"

	"github.com/wirepost/wirepost/shared/envelope"
)

// traceParent returns the member "traceparent" of a frame when it is the first or the last
// one of the message object and valid, else "". Only the two ends of the frame are looked
// at, so that all others cost next to nothing, and nothing is kept of a connection. The string does not
// lie in b.
func traceParent(b []byte) string {
	value := leadingTrace(b)
	if value == nil {
		value = trailingTrace(b)
	}
	if !envelope.ValidTraceParent(value) {
		return ""
	}
	return string(value)
}

var (
	traceKey = []byte(`"` + envelope.TraceParent + `"`)

	beforeTrace = [][]byte{[]byte(`{`), traceKey, []byte(`:`), []byte(`"`)}
	behindTrace = [][]byte{[]byte(`}`), []byte(`"`)} // backwards
)

// leadingTrace reads {"traceparent":"…" with any space between.
func leadingTrace(b []byte) []byte {
	for _, part := range beforeTrace {
		rest, ok := bytes.CutPrefix(b[space(b, 0):], part)
		if !ok {
			return nil
		}
		b = rest
	}
	if len(b) <= envelope.TraceParentLen || b[envelope.TraceParentLen] != '"' {
		return nil
	}
	return b[:envelope.TraceParentLen]
}

// trailingTrace reads "traceparent":"…"} with any space between. A quotation mark behind a
// colon or a space begins a string: in one it would be escaped.
func trailingTrace(b []byte) []byte {
	for _, part := range behindTrace {
		rest, ok := bytes.CutSuffix(trimSpace(b), part)
		if !ok {
			return nil
		}
		b = rest
	}
	if len(b) < envelope.TraceParentLen {
		return nil
	}
	b, value := b[:len(b)-envelope.TraceParentLen], b[len(b)-envelope.TraceParentLen:]
	b, quoted := bytes.CutSuffix(b, []byte(`"`))
	b, named := bytes.CutSuffix(trimSpace(b), []byte(`:`))
	b, traced := bytes.CutSuffix(trimSpace(b), traceKey)
	if b = trimSpace(b); !quoted || !named || !traced || len(b) == 0 || b[len(b)-1] != ',' {
		return nil
	}
	return value
}

// trimSpace returns b without the JSON white space at its end.
func trimSpace(b []byte) []byte {
	for n := len(b); n > 0; n-- {
		if c := b[n-1]; c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			return b[:n]
		}
	}
	return nil
}
