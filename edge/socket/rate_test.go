package socket

import (
	"math/rand/v2"
	"testing"
	"time"
)

// A sender that always sends gets a burst, and its rate for ever; neither more nor less,
// however time is cut.
func TestRatesOverTime(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, r := range []Rates{{Frames: 50}, {Frames: 1}, {Frames: MaxFrameRate}, {Bytes: 256 << 10}, {Bytes: 13 << 10}, {Bytes: MaxByteRate}} {
		var s spent
		const seconds = 1000
		var sent uint64
		for now := 0; now < seconds*100; {
			for s.wait(&r) == 0 {
				if r.Frames > 0 {
					s.frames += perFrame
					sent++
				} else {
					s.bytes += 16 << 10
					sent += 16 << 10
				}
			}
			step := 1 + rng.IntN(50)
			s.repay(uint32(step), &r)
			now += step
		}
		rate := uint64(max(r.Frames, r.Bytes))
		want, slack := rate*(burst+seconds), rate/2+rate*seconds/100+32<<10 // the last step, rounding of bytes, one read
		if r.Frames > 0 {
			slack = rate/2 + 1
		}
		if sent > want+slack || sent < want-slack {
			t.Errorf("%+v: %d were sent in %d s, want %d", r, sent, seconds, want)
		}
	}
}

// The wait is just long enough.
func TestWaitIsExact(t *testing.T) {
	for _, r := range []Rates{{Frames: 50}, {Frames: 7}, {Bytes: 256 << 10}, {Bytes: 10_001}, {Frames: 3, Bytes: 4096}} {
		over := spent{frames: uint32(burst*100*r.Frames + 250), bytes: uint32(burst*r.Bytes + 5000)}
		if r.Frames == 0 {
			over.frames = 0
		}
		if r.Bytes == 0 {
			over.bytes = 0
		}
		stamps := uint32(over.wait(&r) / stampUnit)
		early, enough := over, over
		early.repay(stamps-1, &r)
		enough.repay(stamps, &r)
		if early.wait(&r) == 0 || enough.wait(&r) != 0 {
			t.Errorf("%+v: %d stamps, then %v and %v are missing", r, stamps, early.wait(&r), enough.wait(&r))
		}
	}
}

// Days of silence pay everything back and no more.
func TestLongSilencePays(t *testing.T) {
	s := spent{frames: 1 << 31, bytes: 1 << 31}
	if s.repay(uint32(longest/stampUnit), &Rates{Frames: MaxFrameRate, Bytes: MaxByteRate}); s != (spent{}) {
		t.Errorf("%+v is left", s)
	}
	s = spent{frames: 1000, bytes: 1000}
	if s.repay(1, &Rates{}); s != (spent{1000, 1000}) || s.wait(&Rates{}) != 0 {
		t.Errorf("without a bound: %+v, wait %v", s, s.wait(&Rates{}))
	}
}

// The largest rates fit into spent, with the most that comes on top in one go.
func TestSpentHoldsTheLargestRates(t *testing.T) {
	top := spent{frames: 1 << 32 * 99 / 100, bytes: 1 << 32 * 99 / 100}
	if burst*100*MaxFrameRate > int(top.frames) || burst*MaxByteRate > int(top.bytes) {
		t.Error("spent overflows")
	}
	if w := (&spent{frames: burst * 100 * MaxFrameRate}).wait(&Rates{Frames: MaxFrameRate}); w != time.Duration(0) {
		t.Errorf("a burst waits for %v", w)
	}
}

// Those who have sent too much go on a few in a turn, so that they do not hold up others.
func TestPausesEndInSteps(t *testing.T) {
	onLoop(t, func(c *Conn) {
		k := c.k
		const n = 3*paidStep + 1
		all := make([]*Conn, n)
		for i := range all {
			all[i] = &Conn{k: k, state: stClosed, flags: fPaid}
		}
		k.paid = append(k.paid, all...)
		for left := n; left > 0; {
			k.goOn()
			left = max(left-paidStep, 0)
			waiting := 0
			for _, c := range all {
				if c.has(fPaid) {
					waiting++
				}
			}
			if waiting != left {
				t.Fatalf("%d wait, want %d", waiting, left)
			}
		}
		if len(k.paid) != 0 || k.paidAt != 0 {
			t.Errorf("%d are left from %d", len(k.paid), k.paidAt)
		}
	})
}
