package lane

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wirepost/wirepost/shared/stream"
)

// The headers and status codes of pull requests (NATS ADR-37, ADR-42).
const (
	pinHeader     = "Nats-Pin-Id"           // on each message: the pinned client's id
	pendingHeader = "Nats-Pending-Messages" // on a status: what the request did not get

	descriptionHeader = "Description"

	statusNoResponders = "503" // no such consumer, or it has no leader now
	statusWrongPin     = "423" // another client is pinned
	statusNoMessages   = "404" // a pull that is over, as it should be
	statusTimeout      = "408" // likewise
	statusConflict     = "409" // likewise when the batch or the bytes are used up; else a refusal
)

// maxBytes is the most that one pull brings, the most that is held before the next pull,
// and the most in one batch (one message more at each place): a lane holds some 16 MiB.
const maxBytes = 4 << 20

// feed asks the consumer for messages and takes them in. It has an inbox of its own
// for each run: what was delivered for an older one cannot come in. Owned by the
// tenure's goroutine.
type feed struct {
	nc      *nats.Conn
	next    string // subject of a pull request
	batch   int
	expires time.Duration // of a pull request; a pinned client that sends none for PinnedTTL loses the lane

	in    chan *nats.Msg // written by the connection's reader, which drops what does not fit
	inbox string         // the pulls' reply subjects are <inbox>.<serial>
	sub   *nats.Subscription

	pin    string      // of the run; "" while not pinned
	serial int         // of the last pull
	asked  map[int]int // serial → messages asked for, until its status comes or all have come
	credit int         // messages asked for that have not come
	pulled time.Time   // when the last pull was sent that asked for messages
	kept   time.Time   // when the last request was sent, which keeps the pin
}

func newFeed(js jetstream.JetStream, lane, batch int, pinnedTTL time.Duration) *feed {
	return &feed{
		nc: js.Conn(), batch: batch, expires: expiry(pinnedTTL),
		next: apiPrefix(js.Options()) + "CONSUMER.MSG.NEXT." + stream.Up(lane) + "." + stream.Consumer,
	}
}

// expiry is how long a pull request waits at the server.
func expiry(pinnedTTL time.Duration) time.Duration { return pinnedTTL / 3 }

// silence is how long nothing comes from a consumer only when something is wrong: each pull
// is answered at its expiry at the latest.
func silence(pinnedTTL time.Duration) time.Duration { return 2*expiry(pinnedTTL) + time.Second }

// apiPrefix is where the JetStream API listens, with a dot at its end.
func apiPrefix(o jetstream.JetStreamOptions) string {
	switch {
	case o.Domain != "":
		return "$JS." + o.Domain + ".API."
	case o.APIPrefix != "":
		return strings.TrimSuffix(o.APIPrefix, ".") + "."
	}
	return jetstream.DefaultAPIPrefix
}

// open begins a run with an inbox of its own. Nothing is asked for yet.
func (f *feed) open() error {
	f.close()
	f.in = make(chan *nats.Msg, 4*f.batch+64) // more than is ever asked for at once
	f.inbox = f.nc.NewInbox()
	f.asked, f.credit, f.pulled, f.kept = map[int]int{}, 0, time.Time{}, time.Time{}
	sub, err := f.nc.ChanSubscribe(f.inbox+".*", f.in)
	f.sub = sub
	return err
}

// close drops the inbox. The server drops the requests that nobody listens for.
func (f *feed) close() {
	if f.sub != nil {
		_ = f.sub.Unsubscribe() // fails only on a closed connection
		f.sub = nil
	}
}

// pull keeps enough asked for, when held messages are waiting here. heldBytes is what is
// in memory of the lane beside what was asked for.
func (f *feed) pull(held, heldBytes int) error {
	if f.late() {
		f.asked, f.credit = map[int]int{}, 0
	}
	most := f.batch
	if f.pin == "" {
		most = 1 // it only tells that the lane is ours now, and comes again
	}
	if have := held + f.credit; heldBytes < maxBytes && (have == 0 || have <= most/2) {
		n := most - have
		f.serial++
		f.asked[f.serial] = n
		f.credit += n
		return f.send(f.serial, request{Batch: n, MaxBytes: maxBytes})
	}
	if f.pin != "" && time.Since(f.kept) > f.expires {
		// Nothing can be taken now, but the pin must live: one message of at most one byte
		// is never delivered.
		return f.send(0, request{Batch: 1, MaxBytes: 1})
	}
	return nil
}

// late reports that the server should have answered every pull long ago: they are lost.
// What was sent since to keep the pin is no pull: it is answered, and says nothing.
func (f *feed) late() bool {
	return f.credit > 0 && time.Since(f.pulled) > 2*f.expires+time.Second
}

type request struct {
	Batch    int           `json:"batch"`
	MaxBytes int           `json:"max_bytes,omitempty"`
	Expires  time.Duration `json:"expires"`
	Group    string        `json:"group"`
	Pin      string        `json:"id,omitempty"`
}

// send asks the consumer; serial 0 is a request for nothing.
func (f *feed) send(serial int, r request) error {
	r.Expires, r.Group, r.Pin = f.expires, stream.Group, f.pin
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	f.kept = time.Now()
	if serial > 0 {
		f.pulled = f.kept
	}
	return f.nc.PublishRequest(f.next, f.inbox+"."+strconv.Itoa(serial), body)
}

// Errors of a status message.
var (
	errPinLost = errors.New("another worker is pinned to the lane")
	errNobody  = errors.New("the lane's consumer does not answer")
	errRefused = errors.New("the lane's consumer refuses to be asked")
)

// status reads a message that may be a status of a pull; it is not the lane's then.
func (f *feed) status(m *nats.Msg) (is bool, err error) {
	serial, ok := strings.CutPrefix(m.Subject, f.inbox+".")
	if !ok {
		f.credit = max(f.credit-1, 0)
		return false, nil
	}
	n, _ := strconv.Atoi(serial)
	if asked, ok := f.asked[n]; ok {
		if left, err := strconv.Atoi(m.Header.Get(pendingHeader)); err == nil {
			asked = min(left, asked)
		}
		f.credit = max(f.credit-asked, 0)
		delete(f.asked, n)
	}
	if f.credit == 0 {
		clear(f.asked)
	}
	code, why := m.Header.Get("Status"), m.Header.Get(descriptionHeader)
	switch {
	case code == statusWrongPin:
		return true, errPinLost
	case code == statusNoResponders:
		return true, errNobody
	case code == statusNoMessages, code == statusTimeout,
		code == statusConflict && (strings.Contains(why, "MaxBytes") || strings.Contains(why, "Batch Completed")):
		return true, nil // ask again
	}
	return true, fmt.Errorf("%w: %s %s", errRefused, code, why)
}
