package main

import (
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wirepost/wirepost/scripts/dev/tap"
	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/protocol"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
)

const (
	// messagesCollection is where the worker's store keeps messages.
	messagesCollection = "messages"
	// ways is how many messages are remembered.
	ways = 20_000
	// seen is how many messages of NATS may wait for the tracer; beyond, they are lost to it.
	seen = 1 << 16
)

// tracer watches the way of each chat message from outside: what passes on NATS (it
// subscribes as anybody with full rights could), and what the store acknowledges (see
// package tap). Neither edge nor worker has code for it.
//
// One thing is different while it watches: a subscription on im.up.> answers for a
// missing stream, so an edge waits for its acknowledgement timeout where "no responders"
// would come at once.
type tracer struct {
	nc *nats.Conn
	in chan *nats.Msg // written by nats.go, read by run; never closed
	wg sync.WaitGroup
	// quit is closed by close, and ends run.
	quit chan struct{}

	mu    sync.Mutex
	known map[wayKey]*way
	order []wayKey        // a ring: the oldest is at next
	next  int             //
	acks  map[string]*way // by reply subject of an uplink publish that waits for its PubAck
}

// wayKey names a message: canonical sender and clientMsgId.
type wayKey struct{ from, cid string }

// way is where a message was when. Times are Unix milliseconds with a fraction, 0 for
// not seen. Of a message that came several times the first is kept.
type way struct {
	Found       bool    `json:"found"`
	Edge        string  `json:"edge"`
	Attempts    int     `json:"attempts"`    // times that it was published on the uplink
	EdgeAt      float64 `json:"edgeAt"`      // the edge had the whole frame (its own word: ce-time, whole ms)
	PublishedAt float64 `json:"publishedAt"` // seen on im.up
	JetStreamAt float64 `json:"jetStreamAt"` // its PubAck seen
	FetchedAt   float64 `json:"fetchedAt"`   // handed to a worker
	Stream      string  `json:"stream"`
	StreamSeq   uint64  `json:"streamSeq"`
	StoreAt     float64 `json:"storeAt"` // the store's acknowledgement seen
	Downs       []down  `json:"downs"`

	replies []string // keys of acks
}

// down is a message on the way to one user.
type down struct {
	User   string  `json:"user"`
	At     float64 `json:"at"`     // stored in the downlink stream (its own time stamp)
	SeenAt float64 `json:"seenAt"` // republished, as edges see it
}

// startTracer connects and begins to watch.
func startTracer(url string) (*tracer, error) {
	nc, err := nats.Connect(url, nats.Name("dev tracer"), nats.MaxReconnects(-1))
	if err != nil {
		return nil, fmt.Errorf("tracer: %w", err)
	}
	t := &tracer{nc: nc, in: make(chan *nats.Msg, seen), quit: make(chan struct{}), known: map[wayKey]*way{},
		order: make([]wayKey, ways), acks: map[string]*way{}}
	for _, s := range []string{subject.UpAll(), subject.LiveAll(), edgeInboxes, workerInboxes} {
		if _, err := nc.ChanSubscribe(s, t.in); err != nil {
			nc.Close()
			return nil, fmt.Errorf("tracer: %w", err)
		}
	}
	t.wg.Go(t.run)
	return t, nil
}

func (t *tracer) close() {
	t.nc.Close()
	close(t.quit)
	t.wg.Wait()
}

func (t *tracer) run() {
	for {
		select {
		case m := <-t.in:
			t.see(m, time.Now())
		case <-t.quit:
			return
		}
	}
}

// see sorts by subscription: what JetStream hands to a worker comes by an inbox, and
// carries the uplink subject all the same.
func (t *tracer) see(m *nats.Msg, at time.Time) {
	_, up, notUp := subject.ParseUp(m.Subject)
	_, to, notLive := subject.ParseLive(m.Subject)
	switch {
	case m.Sub.Subject == workerInboxes && notUp == nil:
		t.sawFetch(m, up, at)
	case m.Sub.Subject == edgeInboxes:
		t.sawAck(m, at)
	case notUp == nil:
		t.sawUp(m, up, at)
	case notLive == nil:
		t.sawLive(m, to, at)
	}
}

// chat is what the tracer reads of a frame.
type chat struct {
	SendUserID  string `json:"sendUserId"`
	BizType     int    `json:"bizType"`
	ClientMsgID string `json:"clientMsgId"`
	Seq         int64  `json:"seq"`
}

// uplinked reads a chat message on the uplink; ok is false for everything else.
func uplinked(m *nats.Msg) (ev envelope.Event, c chat, ok bool) {
	ev, err := envelope.Parse(m.Header)
	if err != nil || ev.Type != envelope.Frame || json.Unmarshal(m.Data, &c) != nil {
		return ev, c, false
	}
	return ev, c, c.BizType == protocol.BizChat && c.ClientMsgID != ""
}

func (t *tracer) sawFetch(m *nats.Msg, from userid.ID, at time.Time) {
	if _, c, ok := uplinked(m); ok {
		t.mu.Lock()
		defer t.mu.Unlock()
		once(&t.of(wayKey{from.Token(), c.ClientMsgID}).FetchedAt, at)
	}
}

func (t *tracer) sawUp(m *nats.Msg, from userid.ID, at time.Time) {
	ev, c, ok := uplinked(m)
	if !ok {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	w := t.of(wayKey{from.Token(), c.ClientMsgID})
	w.Attempts++
	once(&w.EdgeAt, ev.Time)
	once(&w.PublishedAt, at)
	if w.Edge == "" {
		w.Edge = ev.Edge
	}
	if m.Reply != "" {
		w.replies = append(w.replies, m.Reply)
		t.acks[m.Reply] = w
	}
}

func (t *tracer) sawAck(m *nats.Msg, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	w, ok := t.acks[m.Subject]
	var ack struct {
		Stream string `json:"stream"`
		Seq    uint64 `json:"seq"`
	}
	if !ok || json.Unmarshal(m.Data, &ack) != nil || ack.Stream == "" {
		return
	}
	delete(t.acks, m.Subject)
	if w.Stream == "" {
		w.Stream, w.StreamSeq = ack.Stream, ack.Seq
	}
	once(&w.JetStreamAt, at)
}

func (t *tracer) sawLive(m *nats.Msg, to userid.ID, at time.Time) {
	var c chat
	if json.Unmarshal(m.Data, &c) != nil || c.Seq == 0 || c.ClientMsgID == "" {
		return
	}
	from, err := userid.Parse(c.SendUserID)
	if err != nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	w := t.of(wayKey{from.Token(), c.ClientMsgID})
	for _, d := range w.Downs {
		if d.User == to.Raw() {
			return
		}
	}
	d := down{User: to.Raw()}
	once(&d.SeenAt, at)
	if stamp, err := time.Parse(time.RFC3339Nano, m.Header.Get(jsTimeStamp)); err == nil {
		once(&d.At, stamp)
	}
	w.Downs = append(w.Downs, d)
}

// stored is called by the tap.
func (t *tracer) stored(list []tap.Insert, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, in := range list {
		if in.CID != "" {
			once(&t.of(wayKey{in.From, in.CID}).StoreAt, at)
		}
	}
}

// get returns the way of a message, as far as it is known.
func (t *tracer) get(from userid.ID, cid string) way {
	t.mu.Lock()
	defer t.mu.Unlock()
	w, ok := t.known[wayKey{from.Token(), cid}]
	if !ok {
		return way{Downs: []down{}}
	}
	out := *w
	out.Found, out.replies = true, nil
	out.Downs = append([]down{}, w.Downs...)
	return out
}

// of returns the way of a message, a new one in place of the oldest if need be. t.mu is held.
func (t *tracer) of(k wayKey) *way {
	w, ok := t.known[k]
	if ok {
		return w
	}
	if old, ok := t.known[t.order[t.next]]; ok {
		for _, r := range old.replies {
			delete(t.acks, r)
		}
		delete(t.known, t.order[t.next])
	}
	w = &way{}
	t.known[k] = w
	t.order[t.next] = k
	t.next = (t.next + 1) % len(t.order)
	return w
}

// Where answers go, JetStream's among them.
const (
	edgeInboxes   = stream.EdgeInbox + ".>"
	workerInboxes = stream.WorkerInbox + ".>"
)

// jsTimeStamp is JetStream's own header of a republished message.
const jsTimeStamp = "Nats-Time-Stamp"

// once sets a time that is not set.
func once(at *float64, t time.Time) {
	if *at == 0 && !t.IsZero() {
		*at = float64(t.UnixNano()) / 1e6
	}
}
