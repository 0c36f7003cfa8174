package conformance

import (
	"fmt"
	"strings"

	"github.com/gobwas/ws"
)

// framing is group 1: whole messages at the borders of the three spellings of a length.
// The suite's 8th of each kind differs from the 7th in how it is cut alone.
func framing() []Case {
	var all []Case
	for i, n := range []int{0, 125, 126, 127, 128, 65535, 65536, 65536} {
		s := strings.Repeat("*", n)
		all = append(all, clean(fmt.Sprintf("1.1.%d", i+1), frame(last|opText, s), want(text(s))))
	}
	for i, n := range []int{0, 125, 126, 127, 128, 65535, 65536, 65536} {
		s := strings.Repeat("\xfe", n)
		all = append(all, clean(fmt.Sprintf("1.2.%d", i+1), frame(last|opBinary, s), want(binaryOf(s))))
	}
	return all
}

// pings is group 2.
func pings() []Case {
	const unsolicited = "unsolicited pong payload"
	most := strings.Repeat("\xfe", 125)
	ping := func(id, s string) Case { return clean(id, frame(last|opPing, s), want(pongOf(s))) }
	var ten []byte
	var tenPongs []Event
	for i := range 10 {
		s := fmt.Sprintf("payload-%d", i)
		ten, tenPongs = append(ten, frame(last|opPing, s)...), append(tenPongs, pongOf(s))
	}
	return []Case{
		ping("2.1", ""),
		ping("2.2", "Hello, world!"),
		ping("2.3", "\x00\xff\xfe\xfd\xfc\xfb\x00\xff"),
		ping("2.4", most),
		ends("2.5", frame(last|opPing, most+"\xfe"), nil, ws.StatusProtocolError),
		ping("2.6", most),
		ends("2.7", join(frame(last|opPong, ""), closeFrame(1000, "")), nil, 1000),
		ends("2.8", join(frame(last|opPong, unsolicited), closeFrame(1000, "")), nil, 1000),
		clean("2.9", join(frame(last|opPong, unsolicited), frame(last|opPing, "ping payload")), want(pongOf("ping payload"))),
		clean("2.10", ten, tenPongs),
		clean("2.11", ten, tenPongs),
	}
}
