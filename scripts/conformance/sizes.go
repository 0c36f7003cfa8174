package conformance

import (
	"fmt"
	"strings"

	"github.com/gobwas/ws"
)

// LargestMessage and MostFragments are what the cases need of a server's limits.
const (
	LargestMessage = 16 << 20
	MostFragments  = 4<<20/64 + 1
)

// repeated returns n bytes of a pattern.
func repeated(pattern string, n int) string {
	return strings.Repeat(pattern, n/len(pattern)+1)[:n]
}

// sizes is group 9: large messages, in many fragments, in small pieces, and many.
func sizes() []Case {
	const kib, mib = 1 << 10, 1 << 20
	kinds := []struct {
		op           byte
		pattern, one string
	}{{opText, "BAsd7&jh23", "*"}, {opBinary, "\x00\xfe\x23\xfa\xf0", "\xfe"}}
	var all []Case
	for k, kind := range kinds {
		for i, n := range []int{64 * kib, 256 * kib, mib, 4 * mib, 8 * mib, 16 * mib} {
			all = append(all, large(fmt.Sprintf("9.%d.%d", k+1, i+1), kind.op, kind.pattern, n, n))
		}
	}
	for k, kind := range kinds {
		for i, n := range []int{64, 256, kib, 4 * kib, 16 * kib, 64 * kib, 256 * kib, mib, 4 * mib} {
			all = append(all, large(fmt.Sprintf("9.%d.%d", k+3, i+1), kind.op, kind.one, 4*mib, n))
		}
	}
	// The suite sends these in pieces of 64 to 2048 bytes.
	for k, kind := range kinds {
		for i := range 6 {
			all = append(all, large(fmt.Sprintf("9.%d.%d", k+5, i+1), kind.op, kind.pattern, mib, mib))
		}
	}
	for k, kind := range kinds {
		for i, n := range []int{0, 16, 64, 256, kib, 4 * kib} {
			all = append(all, many(fmt.Sprintf("9.%d.%d", k+7, i+1), kind.op, strings.Repeat(kind.one, n)))
		}
	}
	return all
}

// large is one message of n bytes in frames of size.
func large(id string, op byte, pattern string, n, size int) Case {
	return Case{id, func() Script {
		s := repeated(pattern, n)
		return answered(Part{Send: inFragments(op, s, size), Want: want(Event{ws.OpCode(op), s})})
	}}
}

// many is a thousand messages, each sent when the one before is back.
func many(id string, op byte, s string) Case {
	return Case{id, func() Script {
		parts := make([]Part, 1000)
		for i := range parts {
			parts[i] = Part{Send: frame(last|op, s), Want: want(Event{ws.OpCode(op), s})}
		}
		return answered(parts...)
	}}
}
