package conformance

import (
	"fmt"

	"github.com/gobwas/ws"
)

// Parts of texts that are used more than once.
const (
	greek     = "\u03ba\u1f79\u03c3\u03bc\u03b5" // 11 bytes: a word whose second letter takes three
	surrogate = "\xed\xa0\x80"
	tooHigh   = "\xf4\x90\x80\x80" // U+110000
	edited    = "edited"
	umlauts   = "Hello-µ@ßöäüàá-UTF-8!!"
)

// texts is group 6: what is UTF-8 (RFC 3629), and how soon what is not must be refused.
func texts() []Case {
	const middle = "middle frame payload"
	broken := greek + surrogate + edited
	all := []Case{
		clean("6.1.1", frame(last|opText, ""), want(text(""))),
		clean("6.1.2", join(frame(more|opText, ""), frame(more|opCont, ""), frame(last|opCont, "")), want(text(""))),
		clean("6.1.3", join(frame(more|opText, ""), frame(more|opCont, middle), frame(last|opCont, "")), want(text(middle))),
		clean("6.2.1", frame(last|opText, umlauts), want(text(umlauts))),
		clean("6.2.2", join(frame(more|opText, "Hello-µ@ßöä"), frame(last|opCont, "üàá-UTF-8!!")), want(text(umlauts))),
		clean("6.2.3", inFragments(opText, umlauts, 1), want(text(umlauts))),
		clean("6.2.4", inFragments(opText, greek, 1), want(text(greek))),
		ends("6.3.1", frame(last|opText, broken), nil, ws.StatusInvalidFramePayloadData),
		ends("6.3.2", inFragments(opText, broken, 1), nil, ws.StatusInvalidFramePayloadData),
	}
	all = append(all, failsFast()...)
	for i, row := range sequences {
		for j, seq := range row {
			id, stream := fmt.Sprintf("6.%d.%d", i+5, j+1), frame(last|opText, seq.s)
			if seq.valid {
				all = append(all, clean(id, stream, want(text(seq.s))))
			} else {
				all = append(all, ends(id, stream, nil, ws.StatusInvalidFramePayloadData))
			}
		}
	}
	return all
}

// failsFast is 6.4: nothing happens while the text can still become valid, and the
// connection is failed before its rest is sent, which therefore never is. The first two
// send frames, the others pieces of one frame.
func failsFast() []Case {
	fast := func(id string, first, second []byte) Case {
		return Case{id, func() Script {
			return Script{Parts: []Part{{Send: first, Quiet: true}, {Send: second}}, Code: ws.StatusInvalidFramePayloadData}
		}}
	}
	whole := frame(last|opText, greek+tooHigh+edited)
	rest := func(s string) int { return len(whole) - len(s) }
	valid := rest(tooHigh + edited)
	return []Case{
		fast("6.4.1", frame(more|opText, greek), frame(more|opCont, tooHigh)),
		fast("6.4.2", frame(more|opText, greek+tooHigh[:1]), frame(more|opCont, tooHigh[1:2])),
		fast("6.4.3", whole[:valid], whole[valid:rest(edited)]),
		fast("6.4.4", whole[:valid+1], whole[valid+1:valid+2]),
	}
}
