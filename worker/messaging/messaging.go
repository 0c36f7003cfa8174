// Package messaging is the business: what a client's frame means, what is stored, who
// is told. It declares the Store and the Deliverer that it needs (seam.go).
//
// It knows neither NATS nor MongoDB, and it keeps nothing that a crash could lose: the
// same events worked again have the same effect.
package messaging

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wirepost/wirepost/shared/envelope"
	"github.com/wirepost/wirepost/shared/protocol"
	"github.com/wirepost/wirepost/shared/userid"
)

const (
	// storeTimeout bounds one attempt to commit a portion of a batch.
	storeTimeout = 5 * time.Second
	// maxPortion is the most messages that the store is given at once.
	maxPortion = 1024
	// queryTimeout bounds the work for one query.
	queryTimeout = 10 * time.Second
	// maxQueries is how many queries one worker answers at a time; a query beyond is
	// refused with CodeUnavailable, as is one beyond the user's share.
	maxQueries = 64
	// maxQueriesPerUser is how many of them one user may have.
	maxQueriesPerUser = 4
	// maxReason is the most bytes of a reason; what a decoder says can quote its input.
	maxReason = 200
	// retryAfter is what the sender of a query is told to wait while the store is away.
	retryAfter = 3 * time.Second
	// adviseEvery is how often the sender of a message that waits for the store is told so.
	adviseEvery = 10 * time.Second
	// keptRetryAfter is what that sender is told to wait. The message is kept, so a copy only
	// makes the lane longer: each advice puts the next one off, also when one or two are lost [r].
	keptRetryAfter = 4 * adviseEvery
)

// Service is the business of one worker. Its methods may be called concurrently, one
// batch of a lane at a time.
type Service struct {
	store     Store
	out       Deliverer
	bodyLimit int // bytes of msgBody
	log       *slog.Logger
	m         *metrics
	now       func() time.Time
	patience  time.Duration // storeTimeout, but in tests

	portion atomic.Int64 // how many messages the store is given at once

	running sync.WaitGroup // the queries at work

	mu      sync.Mutex
	queries int                  // at work
	asking  map[userid.ID]int    // of them by user
	advised map[string]time.Time // clientMsgId by sender → when it was told that the store is away
}

// New returns the business over a store and a downlink. bodyLimit is the most bytes of
// a msgBody.
func New(store Store, out Deliverer, bodyLimit int, log *slog.Logger, reg prometheus.Registerer) *Service {
	s := &Service{
		store: store, out: out, bodyLimit: bodyLimit, log: log, m: newMetrics(reg), now: time.Now, patience: storeTimeout,
		asking: map[userid.ID]int{}, advised: map[string]time.Time{},
	}
	s.portion.Store(maxPortion)
	return s
}

// Wait returns when no query is at work. No Work call may be under way.
func (s *Service) Wait() { s.running.Wait() }

// Work commits a batch of one lane's events, in their order: sessions are recorded,
// messages stored, then every frame that follows from them is published and acknowledged
// by JetStream. Only then it returns without an error, and the batch may be acknowledged.
// After an error (the store or JetStream is away) the same batch must be worked again.
// What the store will never take is refused to its sender, and returned as dead, so that
// an operator finds it.
//
// Queries are answered on the side, after the batch's messages are stored; an answer may
// be lost, and the client asks again.
func (s *Service) Work(ctx context.Context, batch []envelope.Event) ([]Dead, error) {
	var p plan
	for i := range batch {
		s.add(&p, i, &batch[i])
	}
	err := s.applySessions(ctx, p.sessions)
	if err == nil {
		err = s.commit(ctx, &p)
	}
	if err != nil {
		s.adviseAll(&p)
		return nil, err
	}
	if frames := p.frames(); len(frames) > 0 {
		if err := s.out.Deliver(ctx, frames); err != nil {
			return nil, err
		}
	}
	for _, q := range p.queries {
		s.answer(ctx, q)
	}
	s.m.count(&p)
	return p.dead, nil
}

// plan is what a batch comes to. The frames go out in the order of the events that
// caused them: effects is that order.
type plan struct {
	sessions []SessionEvent
	chats    []NewMessage
	stored   []Appended // one for each chat, after Append
	asked    []sender   // one for each chat
	refusals []Frame
	queries  []query
	effects  []effect
	dead     []Dead
	events   map[envelope.Type]int
	refused  map[int]int // by code
}

// effect points to a chat or to a refusal of the plan.
type effect struct {
	refusal bool
	index   int
}

// sender is where the answer to a frame goes, and what it must carry.
type sender struct {
	ev          *envelope.Event
	index       int // of ev in the batch
	clientMsgID string
	reqID       string
}

func (s *Service) add(p *plan, index int, ev *envelope.Event) {
	if p.events == nil {
		p.events = map[envelope.Type]int{}
	}
	switch ev.Type {
	case envelope.Connected:
		var hello envelope.Hello
		_ = json.Unmarshal(ev.Data, &hello) // an edge of another version: a session without details
		p.sessions = append(p.sessions, SessionEvent{Conn: ev.Conn, Edge: ev.Edge, User: ev.User,
			DeviceID: hello.DeviceID, Addr: hello.Addr, At: ev.Time})
	case envelope.Disconnected:
		p.sessions = append(p.sessions, SessionEvent{Conn: ev.Conn, Edge: ev.Edge, User: ev.User,
			At: ev.Time, Closed: true, Reason: ev.Reason})
	case envelope.Frame:
		s.addFrame(p, index, ev)
	default: // a newer edge's event: nothing for this worker to do
		p.events["unknown"]++
		return
	}
	p.events[ev.Type]++
}

func (s *Service) applySessions(ctx context.Context, events []SessionEvent) error {
	if len(events) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return s.store.ApplySessions(ctx, events)
}

// commit stores the batch's messages. A store that could not take the last batch in time
// gets the next ones in smaller portions, down to single messages, so that a slow store
// is a slow one and not one that times out for ever.
func (s *Service) commit(ctx context.Context, p *plan) error {
	portion := int(s.portion.Load())
	for rest := p.chats; len(rest) > 0; {
		n := min(len(rest), portion)
		stored, late, err := s.append(ctx, rest[:n])
		if late {
			s.portion.Store(max(1, int64(n)/2))
		}
		if err != nil {
			return err
		}
		p.stored = append(p.stored, stored...)
		rest = rest[n:]
	}
	if len(p.chats) >= portion {
		s.portion.Store(min(2*int64(portion), maxPortion))
	}
	return nil
}

// append is one attempt; late tells that it ran into its time limit.
func (s *Service) append(ctx context.Context, msgs []NewMessage) (stored []Appended, late bool, err error) {
	actx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	stored, err = s.store.Append(actx, msgs)
	return stored, err != nil && actx.Err() != nil && ctx.Err() == nil, err
}

// frames renders what the batch's events lead to, in the order of the events.
func (p *plan) frames() []Frame {
	frames := make([]Frame, 0, 2*len(p.effects))
	for _, e := range p.effects {
		if e.refusal {
			frames = append(frames, p.refusals[e.index])
			continue
		}
		msg, res, from := &p.chats[e.index], p.stored[e.index], p.asked[e.index]
		switch res.Outcome {
		case Stored, Known:
			data := render(StoredMessage{Conv: msg.Conv, Seq: res.Seq, From: msg.From, CID: msg.CID,
				Type: msg.Type, Body: msg.Body, TS: res.TS}).Append(nil)
			for _, to := range msg.Members {
				f := Frame{To: to, Data: data, Trace: msg.Trace}
				if to == msg.From {
					f.Echo = envelope.EchoOf(from.ev.Edge, from.ev.Time)
				}
				frames = append(frames, f)
			}
		case Reused:
			p.countRefusal(protocol.CodeClientMsgReused)
			frames = append(frames, from.refusal(protocol.CodeClientMsgReused, "clientMsgId was used with another payload or receiver", 0))
		case Refused:
			p.countRefusal(protocol.CodeNotStorable)
			frames = append(frames, from.refusal(protocol.CodeNotStorable, res.Reason, 0))
			p.dead = append(p.dead, Dead{Index: from.index, Reason: "the store refuses it: " + res.Reason})
		}
	}
	return frames
}

func (p *plan) countRefusal(code int) {
	if p.refused == nil {
		p.refused = map[int]int{}
	}
	p.refused[code]++
}

// refusal renders a refusal for the connection that sent the frame, and for no other.
func (f sender) refusal(code int, reason string, retryAfter time.Duration) Frame {
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "") + "…"
	}
	m := protocol.Message{MsgType: protocol.Business, ClientMsgID: f.clientMsgID, ReqID: f.reqID,
		Code: code, Reason: reason, RetryAfterMs: retryAfter.Milliseconds()}
	return Frame{To: f.ev.User, Conn: f.ev.Conn, Data: m.Append(nil), Trace: f.ev.Trace}
}

// adviseAll tells the senders of messages that cannot be stored now to be patient. The
// messages stay where they are and are stored later; a retry of the same bytes is
// harmless. Each is told once in adviseEvery, and the advice may be lost.
func (s *Service) adviseAll(p *plan) {
	for _, from := range s.notAdvised(p) {
		s.reply(from.refusal(protocol.CodeUnavailable, "the store is away", keptRetryAfter))
	}
}

// notAdvised returns the senders that were not advised lately, and notes that they are now.
func (s *Service) notAdvised(p *plan) (senders []sender) {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.advised, func(_ string, at time.Time) bool { return now.Sub(at) >= adviseEvery })
	for i, from := range p.asked {
		key := p.chats[i].From.Token() + "/" + p.chats[i].CID
		if _, told := s.advised[key]; !told {
			s.advised[key] = now
			senders = append(senders, from)
		}
	}
	return senders
}

func (s *Service) reply(f Frame) {
	if err := s.out.Reply(f); err != nil { // the client asks again
		s.m.repliesLost.Inc()
		s.log.Warn("a reply is lost", "user", f.To, "bytes", len(f.Data), "err", err)
	}
}
