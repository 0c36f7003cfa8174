package downlink

import (
	"errors"
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
