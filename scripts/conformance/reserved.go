package conformance

import (
	"fmt"

	"github.com/gobwas/ws"
)

// hello is what the suite sends before a frame that breaks the rules: its echo must
// come first, nothing may come for what stands behind.
const hello = "Hello, world!"

// reserved is group 3: bits that only an extension could give a meaning.
func reserved() []Case {
	const junk = "\x00\xff\xfe\xfd\xfc\xfb\x00\xff"
	rsv := func(n byte) byte { return last | n<<4 }
	behind := func(id string, n byte) Case {
		return ends(id, join(frame(last|opText, hello), frame(rsv(n)|opText, hello), frame(last|opPing, "")),
			want(text(hello)), ws.StatusProtocolError)
	}
	alone := func(id string, first byte, payload string) Case {
		return ends(id, frame(first, payload), nil, ws.StatusProtocolError)
	}
	return []Case{
		alone("3.1", rsv(1)|opText, hello),
		behind("3.2", 2),
		behind("3.3", 3),
		behind("3.4", 4),
		alone("3.5", rsv(5)|opBinary, junk),
		alone("3.6", rsv(6)|opBinary, hello),
		alone("3.7", rsv(7)|opClose, ""),
	}
}

// opcodes is group 4: frames of no known kind, 3 to 7 and, as control frames, 11 to 15.
func opcodes() []Case {
	var all []Case
	for i, first := range []byte{3, 11} {
		for n := range byte(5) {
			payload := ""
			switch {
			case n == 1:
				payload = "reserved opcode payload"
			case n > 2:
				payload = hello
			}
			id, odd := fmt.Sprintf("4.%d.%d", i+1, n+1), frame(last|(first+n), payload)
			if n < 2 {
				all = append(all, ends(id, odd, nil, ws.StatusProtocolError))
				continue
			}
			all = append(all, ends(id, join(frame(last|opText, hello), odd, frame(last|opPing, "")),
				want(text(hello)), ws.StatusProtocolError))
		}
	}
	return all
}
