package delivery

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/wirepost/wirepost/shared/stream"
)

// flight is a run of frames that are published and not all acknowledged.
type flight struct {
	done chan struct{} // closed when all are acknowledged, or when the first failure is known

	mu     sync.Mutex
	acked  []bool
	first  int // all before it are acknowledged
	count  int // frames published
	failed int // index of the first frame known to have failed; count for none
	err    error
	over   bool
}

func newFlight(n int) *flight {
	return &flight{done: make(chan struct{}), acked: make([]bool, n), count: n, failed: n}
}

// ack notes the answer for one frame.
func (f *flight) ack(i int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if i >= len(f.acked) {
		return
	}
	if err != nil {
		f.fail(i, err)
		return
	}
	f.acked[i] = true
	for f.first < f.failed && f.acked[f.first] {
		f.first++
	}
	f.settle()
}

// end notes that frame i could not be published, nor any behind it.
func (f *flight) end(i int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail(i, err)
}

func (f *flight) fail(i int, err error) {
	if i < f.failed {
		f.failed, f.err = i, err
	}
	f.settle()
}

// settle ends the flight when every frame before the first failure is acknowledged.
func (f *flight) settle() {
	if f.first >= f.failed && !f.over {
		f.over = true
		close(f.done)
	}
}

// result returns how many frames from the first on are acknowledged, and why the next
// one is not.
func (f *flight) result() (n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.first == f.count:
		return f.count, nil
	case f.first < f.failed:
		return f.first, errNoAck
	}
	return f.first, f.err
}

// ofDownlink is how the acknowledgement of a shard begins, as servers write it today.
var ofDownlink = []byte(`{"stream":"DOWN_`)

// pubAckError returns why a publish was refused, nil when a shard of the downlink has stored
// it. The usual answer, {"stream":"DOWN_…","seq":…}, is not decoded.
func pubAckError(m *nats.Msg) error {
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		return nats.ErrNoResponders
	}
	if bytes.HasPrefix(m.Data, ofDownlink) && !bytes.Contains(m.Data, []byte(`"error"`)) && bytes.Contains(m.Data, []byte(`"seq":`)) {
		return nil
	}
	var answer struct {
		Error *struct {
			Code        int    `json:"err_code"`
			Description string `json:"description"`
		} `json:"error"`
		Stream string `json:"stream"`
		Seq    uint64 `json:"seq"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return fmt.Errorf("unreadable acknowledgement: %w", err)
	}
	if answer.Error != nil {
		return fmt.Errorf("refused: %s (%d)", answer.Error.Description, answer.Error.Code)
	}
	if _, err := stream.ParseDown(answer.Stream); err != nil || answer.Seq == 0 {
		return fmt.Errorf("no shard's acknowledgement: %.100s", m.Data)
	}
	return nil
}
