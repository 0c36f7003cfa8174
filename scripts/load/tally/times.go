package tally

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Kind names one latency.
type Kind int

// The latencies.
const (
	Login   Kind = iota // from when the connection was due to the login reply
	Ack                 // from when the message was due to its echo at the sender
	Deliver             // from when the message was due to the recipient's device
	Back                // from the loss of a connection to the next login reply
	Beat                // from a heartbeat to its answer
	Lag                 // from when a message was due to its writing: the tool's own delay

	kinds
)

var kindNames = [kinds]string{Login: "login", Ack: "acknowledged", Deliver: "delivered", Back: "back", Beat: "heartbeat", Lag: "tool_lag"}

func (k Kind) String() string { return kindNames[k] }

// Kinds lists all of them.
func Kinds() []Kind { return []Kind{Login, Ack, Deliver, Back, Beat, Lag} }

// Values are kept in microseconds, to 1 %, up to half an hour.
const (
	longest = int64(30 * time.Minute / time.Microsecond)
	digits  = 2
)

// Times holds a histogram of each latency. The zero value is empty.
type Times struct {
	h [kinds]*hdrhistogram.Histogram
}

// Record adds one value.
func (t *Times) Record(k Kind, d time.Duration) {
	// Both limits are kept, so RecordValue cannot fail.
	_ = t.of(k).RecordValue(min(max(d.Microseconds(), 1), longest))
}

func (t *Times) of(k Kind) *hdrhistogram.Histogram {
	if t.h[k] == nil {
		t.h[k] = hdrhistogram.New(1, longest, digits)
	}
	return t.h[k]
}

// Merge adds all values of o.
func (t *Times) Merge(o *Times) {
	for k, h := range o.h {
		if h != nil {
			t.of(Kind(k)).Merge(h) // of the same shape: nothing is dropped
		}
	}
}

// Count returns how many values there are.
func (t *Times) Count(k Kind) int64 {
	if t.h[k] == nil {
		return 0
	}
	return t.h[k].TotalCount()
}

// Quantile returns the value below which a part q (0 to 1) of the values lies, 0 when
// there is none.
func (t *Times) Quantile(k Kind, q float64) time.Duration {
	if t.h[k] == nil {
		return 0
	}
	return time.Duration(t.h[k].ValueAtQuantile(100*q)) * time.Microsecond
}

// Spread returns how many values lie below each of the bounds and not below the one
// before it; the last number is of those beyond all bounds, which ascend.
func (t *Times) Spread(k Kind, bounds []time.Duration) []int64 {
	all := make([]int64, len(bounds)+1)
	if t.h[k] == nil {
		return all
	}
	for _, bar := range t.h[k].Distribution() {
		at, _ := slices.BinarySearch(bounds, time.Duration(bar.From)*time.Microsecond+1)
		all[at] += bar.Count
	}
	return all
}

// Mean returns the mean.
func (t *Times) Mean(k Kind) time.Duration {
	if t.h[k] == nil {
		return 0
	}
	return time.Duration(t.h[k].Mean() * float64(time.Microsecond))
}

// MarshalJSON writes each histogram that is not empty in the format of HdrHistogram.
func (t Times) MarshalJSON() ([]byte, error) {
	m := map[string]string{}
	for k, h := range t.h {
		if h == nil || h.TotalCount() == 0 {
			continue
		}
		b, err := h.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", kindNames[k], err)
		}
		m[kindNames[k]] = string(b)
	}
	return json.Marshal(m)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (t *Times) UnmarshalJSON(b []byte) error {
	var m map[string]string
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	*t = Times{}
	for k, name := range kindNames {
		if text, ok := m[name]; ok {
			h, err := hdrhistogram.Decode([]byte(text))
			if err != nil {
				return fmt.Errorf("decode %s: %w", name, err)
			}
			t.of(Kind(k)).Merge(h)
		}
	}
	return nil
}
