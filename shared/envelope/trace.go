package envelope

import (
	"bytes"
	"strconv"
	"time"
)

// TraceParent is the header with the W3C Trace Context of what an event is a part of.
const TraceParent = "traceparent"

// TraceParentLen is the length of a traceparent of version 00:
//
//	00-<trace id: 32 hex digits>-<parent id: 16>-<flags: 2>
const TraceParentLen = 55

// ValidTraceParent reports whether s is a traceparent of version 00 (W3C Trace Context,
// section 3.2): lower-case hexadecimal, neither of the ids all zeros. Other versions, of
// which there is none yet, are not taken.
func ValidTraceParent[T string | []byte](s T) bool {
	if len(s) != TraceParentLen || s[0] != '0' || s[1] != '0' || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return false
	}
	for _, part := range [...][2]int{{3, 35}, {36, 52}, {53, 55}} {
		zero := true
		for i := part[0]; i < part[1]; i++ {
			c := s[i]
			if (c < '0' || '9' < c) && (c < 'a' || 'f' < c) {
				return false
			}
			zero = zero && c == '0'
		}
		if zero && part[0] != 53 { // flags may be zero: not sampled
			return false
		}
	}
	return true
}

// Echo is a header of a downlink frame that is the echo of a sender's frame: the edge that
// received that one, a space, and when, in Unix milliseconds. It is for measurement.
const Echo = "ce-echo"

// EchoOf returns the value of Echo for a frame that edge received at that time.
func EchoOf(edge string, at time.Time) string {
	b := make([]byte, 0, len(edge)+14)
	b = append(append(b, edge...), ' ')
	return string(strconv.AppendInt(b, at.UnixMilli(), 10))
}

// ParseEcho returns when edge received what a frame echoes, by the value of its Echo: Unix
// milliseconds of the edge's own clock. It is 0 when another edge did, and when the value is
// malformed.
func ParseEcho(value []byte, edge string) (ms int64) {
	name, digits, _ := bytes.Cut(value, []byte(" "))
	if string(name) != edge || len(digits) == 0 || len(digits) > 15 {
		return 0
	}
	for _, c := range digits {
		if c < '0' || '9' < c {
			return 0
		}
		ms = 10*ms + int64(c-'0')
	}
	return ms
}
