package conformance

import (
	"fmt"
	"strings"

	"github.com/gobwas/ws"
)

// fragments is group 5. Neighbours that send the same bytes differ, in the suite, in how
// those are cut.
func fragments() []Case {
	const f1, f2, f3, f4, lonely = "fragment1", "fragment2", "fragment3", "fragment4", "non-continuation payload"
	broken := func(id string, frames ...[]byte) Case {
		return ends(id, join(frames...), nil, ws.StatusProtocolError)
	}
	all := []Case{
		broken("5.1", frame(more|opPing, f1), frame(last|opCont, f2)),
		broken("5.2", frame(more|opPong, f1), frame(last|opCont, f2)),
	}
	two := join(frame(more|opText, f1), frame(last|opCont, f2))
	withPing := join(frame(more|opText, f1), frame(last|opPing, "ping payload"), frame(last|opCont, f2))
	for i := 3; i <= 5; i++ {
		all = append(all, clean(fmt.Sprintf("5.%d", i), two, want(text(f1+f2))))
	}
	for i := 6; i <= 8; i++ {
		all = append(all, clean(fmt.Sprintf("5.%d", i), withPing, want(pongOf("ping payload"), text(f1+f2))))
	}
	for i, first := range []byte{last, last, last, more, more, more} {
		all = append(all, broken(fmt.Sprintf("5.%d", i+9), frame(first|opCont, lonely), frame(last|opText, hello)))
	}
	twice := func(first byte) []byte {
		once := join(frame(first|opCont, f1), frame(more|opText, f2), frame(last|opCont, f3))
		return join(once, once)
	}
	return append(all,
		ends("5.15", join(two, frame(more|opCont, f3), frame(last|opText, f4)), want(text(f1+f2)), ws.StatusProtocolError),
		broken("5.16", twice(more)),
		broken("5.17", twice(last)),
		broken("5.18", frame(more|opText, f1), frame(last|opText, f2)),
		pingsInside("5.19"),
		pingsInside("5.20"),
	)
}

// pingsInside: a ping is answered while the message around it is incomplete.
func pingsInside(id string) Case {
	part := func(i int) string { return fmt.Sprintf("fragment%d", i) }
	whole := strings.Join([]string{part(1), part(2), part(3), part(4), part(5)}, "")
	return Case{id, func() Script {
		return answered(
			Part{Send: join(frame(more|opText, part(1)), frame(more|opCont, part(2)), frame(last|opPing, "pongme 1!")),
				Want: want(pongOf("pongme 1!"))},
			Part{Send: join(frame(more|opCont, part(3)), frame(more|opCont, part(4)), frame(last|opPing, "pongme 2!"), frame(last|opCont, part(5))),
				Want: want(pongOf("pongme 2!"), text(whole))},
		)
	}}
}

// fragmented is group 10: a message in frames of 1300 bytes.
func fragmented() []Case {
	s := strings.Repeat("*", 65536)
	return []Case{clean("10.1.1", inFragments(opText, s, 1300), want(text(s)))}
}
