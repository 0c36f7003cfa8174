package conformance

import (
	"fmt"
	"strings"

	"github.com/gobwas/ws"
)

// closes is group 7: what a close frame may hold, and what counts behind one: nothing.
func closes() []Case {
	const greeting = "Hello World!"
	bye := closeFrame(1000, "")
	all := []Case{
		clean("7.1.1", frame(last|opText, greeting), want(text(greeting))),
		ends("7.1.2", join(bye, frame(last|opClose, "")), nil, 1000),
		ends("7.1.3", join(bye, frame(last|opPing, "")), nil, 1000),
		ends("7.1.4", join(bye, frame(last|opText, greeting)), nil, 1000),
		ends("7.1.5", join(frame(more|opText, "fragment1"), bye, frame(last|opCont, "fragment2")), nil, 1000),
		answersFirst(greeting),
		ends("7.3.1", frame(last|opClose, ""), nil, 0),
		ends("7.3.2", frame(last|opClose, "a"), nil, ws.StatusProtocolError),
		ends("7.3.3", bye, nil, 1000),
		ends("7.3.4", closeFrame(1000, "Hello World!"), nil, 1000),
		ends("7.3.5", closeFrame(1000, strings.Repeat("*", 123)), nil, 1000),
		ends("7.3.6", closeFrame(1000, strings.Repeat("*", 124)), nil, ws.StatusProtocolError),
		ends("7.5.1", closeFrame(1000, greek+surrogate+edited), nil, ws.StatusInvalidFramePayloadData),
	}
	for i, code := range []ws.StatusCode{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999} {
		all = append(all, ends(fmt.Sprintf("7.7.%d", i+1), closeFrame(code, ""), nil, code))
	}
	for i, code := range []ws.StatusCode{0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999} {
		all = append(all, ends(fmt.Sprintf("7.9.%d", i+1), closeFrame(code, ""), nil, ws.StatusProtocolError))
	}
	return append(all,
		ends("7.13.1", closeFrame(5000, ""), nil, ws.StatusProtocolError),
		ends("7.13.2", closeFrame(65535, ""), nil, ws.StatusProtocolError),
	)
}

// answersFirst: what came before a close frame is answered before it, however long it
// is; the suite leaves that open.
func answersFirst(greeting string) Case {
	return Case{"7.1.6", func() Script {
		big := repeated("BAsd7&jh23", 256<<10)
		return Script{Parts: []Part{{
			Send: join(frame(last|opText, big), frame(last|opText, greeting), closeFrame(1000, ""), frame(last|opPing, "")),
			Want: want(text(big), text(greeting)),
		}}, Code: 1000}
	}}
}
