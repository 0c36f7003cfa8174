package downlink

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"testing"

	"github.com/nats-io/nats.go"
)

// nats.go drops what does not fit in the queue: whatever part of an answer is missing,
// it is noticed, and nothing behind it is believed.
func TestAnswerWithAHole(t *testing.T) {
	seqs := []uint64{3, 5, 9, 12}
	answer := func(without int) chan *nats.Msg {
		ch := make(chan *nats.Msg, len(seqs)+2)
		ch <- &nats.Msg{Subject: "late", Header: nats.Header{hSequence: {"99"}, hLast: {"98"}}}
		prev := "0"
		for i, seq := range seqs {
			n := strconv.FormatUint(seq, 10)
			if i != without {
				ch <- &nats.Msg{Subject: "reply", Header: nats.Header{hSequence: {n}, hLast: {prev}}}
			}
			prev = n
		}
		ch <- &nats.Msg{Subject: "reply", Header: nats.Header{"Status": {"204"}, hLast: {prev}, hPending: {"7"}}}
		return ch
	}
	for without := -1; without < len(seqs); without++ {
		r := &reader{answer: answer(without)}
		var got []uint64
		e, err := r.collect(t.Context(), "reply", func(m *nats.Msg) { got = append(got, number(m, hSequence)) })
		want := seqs
		if without >= 0 {
			want = seqs[:without]
		}
		if !slices.Equal(got, want) || errors.Is(err, errHole) != (without >= 0) {
			t.Errorf("without message %d: got %v, %v", without, got, err)
		}
		if without < 0 && (err != nil || e.status != "204" || e.pending != 7) {
			t.Errorf("the end is %+v, %v", e, err)
		}
	}
}

// part is what a replica answers to one request for the last messages.
type part struct {
	msgs    map[string]uint64 // subject → sequence
	upTo    uint64            // what the replica knows
	pending uint64
	broken  bool // a message is missing
}

// Answers that broke off or were cut are not put together with those of a replica that
// knows less: what lies between would be taken for not there, and a resume token would pass
// it.
func TestLastsAreOfOneReplica(t *testing.T) {
	const marker, upto = "m", 10
	stale := part{upTo: 8}
	whole := part{msgs: map[string]uint64{"u1": 9, marker: 10, "u2": 12}, upTo: 12}
	for name, parts := range map[string][]part{
		"whole":                     {whole},
		"stale first":               {stale, whole},
		"broken behind the marker":  {{msgs: map[string]uint64{marker: 10, "u2": 11}, upTo: 12, broken: true}, stale, whole},
		"cut behind the marker":     {{msgs: map[string]uint64{"u1": 3, marker: 10}, upTo: 12, pending: 1}, stale, whole},
		"the next page knows less":  {{msgs: map[string]uint64{"u1": 3, marker: 10}, upTo: 12, pending: 1}, {upTo: 11}, whole},
		"without the marker":        {{msgs: map[string]uint64{"u2": 12}, upTo: 12}, whole},
		"two pages of one":          {{msgs: map[string]uint64{"u1": 9, marker: 10}, upTo: 12, pending: 1}, {msgs: map[string]uint64{"u2": 12}, upTo: 12}},
		"the next page knows more":  {{msgs: map[string]uint64{"u1": 9, marker: 10}, upTo: 11, pending: 1}, {msgs: map[string]uint64{"u2": 12}, upTo: 12}},
		"broken before the marker":  {{msgs: map[string]uint64{"u1": 9, "u2": 9}, upTo: 12, broken: true}, whole},
		"stale and broken in turns": {stale, {msgs: map[string]uint64{marker: 10}, upTo: 12, broken: true}, stale, whole},
	} {
		var asked []uint64
		r := &reader{m: newMetrics(nil), answer: make(chan *nats.Msg, 100)}
		r.publish = func(_, reply string, body []byte) error {
			var req getRequest
			if err := json.Unmarshal(body, &req); err != nil {
				return err
			}
			if asked = append(asked, req.Seq); len(asked) > len(parts) {
				return errors.New("asked too often")
			}
			p, prev := parts[len(asked)-1], uint64(0)
			subjects := slices.SortedFunc(maps.Keys(p.msgs), func(a, b string) int { return int(p.msgs[a]) - int(p.msgs[b]) })
			for _, s := range subjects {
				r.answer <- &nats.Msg{Subject: reply, Header: nats.Header{hSubject: {s},
					hSequence: {strconv.FormatUint(p.msgs[s], 10)}, hLast: {strconv.FormatUint(prev, 10)}}}
				prev = p.msgs[s]
			}
			if p.broken {
				prev++
			}
			r.answer <- &nats.Msg{Subject: reply, Header: nats.Header{"Status": {"204"}, hLast: {strconv.FormatUint(prev, 10)},
				hPending: {strconv.FormatUint(p.pending, 10)}, hUpTo: {strconv.FormatUint(p.upTo, 10)}}}
			return nil
		}
		got, err := r.lasts(t.Context(), "s", map[string]bool{"u1": true, "u2": true}, marker, 2, upto)
		want := map[string]uint64{"u1": 9, "u2": 12}
		if err != nil || !maps.Equal(got, want) || len(asked) != len(parts) {
			t.Errorf("%s: %v, %v after %d of %d answers, want %v", name, got, err, len(asked), len(parts), want)
		}
	}
}
