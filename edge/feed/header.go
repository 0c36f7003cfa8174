package feed

import (
	"bytes"
	"iter"
)

// Fields walks over a header block
//
//	NATS/1.0\r\n
//	Key: value\r\n
//	\r\n
//
// in the order of its lines, without an allocation. Keys are as they were sent, of values
// the space around them is taken off. A line without a colon is left out.
func (f *Frame) Fields() iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		_, rest, more := bytes.Cut(f.Header, []byte("\n")) // the version
		for more {
			var line []byte
			line, rest, more = bytes.Cut(rest, []byte("\n"))
			if colon := bytes.IndexByte(line, ':'); colon > 0 && !yield(line[:colon], bytes.TrimSpace(line[colon+1:])) {
				return
			}
		}
	}
}
