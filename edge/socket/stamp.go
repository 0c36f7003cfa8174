package socket

import "time"

// stamp is a time on a loop's clock in units of 10 ms. It wraps after 497 days, so
// stamps are compared by their difference, which is right up to 248 days.
type stamp uint32

const (
	stampUnit = 10 * time.Millisecond
	stampLag  = 2 * stampUnit        // by which a stamp of now may be late: it is rounded down, and as old as the loop's turn
	longest   = 200 * 24 * time.Hour // what a difference of stamps can hold with room to spare
)

func stampOf(d time.Duration) stamp { return stamp(uint64(d / stampUnit)) }

// after returns s plus d, rounded up; d is cut at longest.
func (s stamp) after(d time.Duration) stamp {
	return s + stamp((min(d, longest)+stampUnit-1)/stampUnit)
}

// sub returns s minus t.
func (s stamp) sub(t stamp) time.Duration { return time.Duration(int32(s-t)) * stampUnit }

// reached reports whether now is s or later.
func (s stamp) reached(now stamp) bool { return int32(now-s) >= 0 }

// earlier returns the one that comes first.
func earlier(a, b stamp) stamp {
	if int32(a-b) < 0 {
		return a
	}
	return b
}
