package security_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
	"github.com/wirepost/wirepost/worker/streams"
)

// aims are the reply subjects by which somebody who may publish little has a server
// publish more. The server checks no reply subject but those of acks.
func aims(down string) []string {
	var all []string
	for _, name := range []string{"UP_0", down, stream.Dead, "KV_" + stream.Workers, "NEW"} {
		for _, verb := range []string{"CREATE", "UPDATE", "DELETE", "PURGE", "SNAPSHOT", "RESTORE", "MSG.DELETE", "PEER.REMOVE", "LEADER.STEPDOWN"} {
			all = append(all, "$JS.API.STREAM."+verb+"."+name)
		}
		for _, verb := range []string{"CREATE", "DURABLE.CREATE", "DELETE", "PAUSE", "RESET", "UNPIN", "MSG.NEXT", "LEADER.STEPDOWN"} {
			all = append(all, "$JS.API.CONSUMER."+verb+"."+name+".work")
		}
	}
	return all
}

// laid is a system's streams with some messages in them, and an eye on them.
type laid struct {
	*cluster
	js   jetstream.JetStream
	down string // the stream of shard 0
	seq  uint64 // of an empty message in it
}

func lay(t *testing.T, edit func(file, text string) string) *laid {
	c := newCluster(t, 1, edit)
	js, err := jetstream.New(c.connect("admin"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := streams.Ensure(ctx, js, streams.Layout{Lanes: 1, Shards: 1}); err != nil {
		t.Fatal(err)
	}
	l := &laid{cluster: c, js: js}
	ann := userid.MustParse("ann")
	for _, s := range []string{subject.Up(0, ann), subject.Down(0, ann), subject.Dead(0, ann), "$KV.workers.lease.worker-1"} {
		if _, err := js.Publish(ctx, s, []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	ack, err := js.Publish(ctx, subject.Mark(0, "edge-1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	l.down, l.seq = ack.Stream, ack.Sequence
	return l
}

// state is all that may not change: the streams as they are configured, how many messages
// each has lost, and the consumers.
func (l *laid) state() string {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var all []string
	list := l.js.ListStreams(ctx)
	for info := range list.Info() {
		if strings.HasPrefix(info.Config.Name, "KV_") {
			info.State.FirstSeq, info.State.Msgs, info.State.LastSeq = 0, 0, 0 // leases end by themselves, records are written over
		}
		all = append(all, fmt.Sprintf("%s created %v first %d lost %d", text(l.t, info.Config), info.Created, info.State.FirstSeq,
			info.State.LastSeq+1-info.State.FirstSeq-info.State.Msgs))
	}
	if err := list.Err(); err != nil {
		l.t.Fatal(err)
	}
	work, err := l.js.Consumer(ctx, stream.Up(0), stream.Consumer)
	if err != nil {
		return fmt.Sprint(err)
	}
	info := work.CachedInfo()
	all = append(all, fmt.Sprintf("%s created %v delivered %+v", text(l.t, info.Config), info.Created, info.Delivered))
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// text of a configuration; its pointers would print as addresses.
func text(t testing.TB, config any) string {
	t.Helper()
	b, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// ask publishes a request with each aim as its reply subject, and waits until the server
// has answered: the last request has a reply subject of the role's own.
func (l *laid) ask(nc *nats.Conn, to string, bodies [][]byte, replies []string) {
	l.t.Helper()
	for _, reply := range replies {
		for _, body := range bodies {
			if err := nc.PublishRequest(to, reply, body); err != nil {
				l.t.Fatal(err)
			}
		}
	}
	if _, err := nc.Request(to, bodies[0], patience); err != nil {
		l.t.Fatalf("%s is not answered: %v", to, err)
	}
}

// places are subjects of streams to which an edge may not publish, and to which its
// acknowledgements come when it wants: docs/security.md lists what that does.
var places = []string{subject.Up(0, userid.MustParse("bob")), subject.Down(0, userid.MustParse("bob")), subject.Dead(0, userid.MustParse("bob")),
	"$KV.suspects.0", "$KV.workers.lease.eve", "$KV.workers.lock.streams"}

// onlyAcknowledgements: what is in places now is none of an edge's choice.
func (l *laid) onlyAcknowledgements() {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, place := range places {
		name, err := l.js.StreamNameBySubject(ctx, place)
		if err != nil {
			l.t.Fatal(err)
		}
		s, err := l.js.Stream(ctx, name)
		if err != nil {
			l.t.Fatal(err)
		}
		m, err := s.GetLastMsgForSubject(ctx, place)
		if err != nil {
			l.t.Errorf("nothing came to %s, so this test looks at nothing: %v", place, err)
			continue
		}
		var ack server.PubAck
		strict := json.NewDecoder(bytes.NewReader(m.Data))
		strict.DisallowUnknownFields()
		if err := strict.Decode(&ack); err != nil || ack.Sequence == 0 {
			l.t.Errorf("%s has %q of an edge, %v", place, m.Data, err)
		}
	}
}

// What an edge publishes is acknowledged wherever it says. With the API as the place that
// changes nothing: each request there is refused, because an acknowledgement is none. In a
// stream it is one message more, which says no more than that something was stored.
func TestAcknowledgementsChangeNothing(t *testing.T) {
	l := lay(t, nil)
	before := l.state()
	nc := l.connect("edge")
	up, mark := subject.Up(0, userid.MustParse("eve")), subject.Mark(0, "edge-eve")
	replies := append(aims(l.down), places...)
	l.ask(nc, up, [][]byte{[]byte("{}"), nil}, replies)
	l.ask(nc, mark, [][]byte{nil, []byte(`{}`)}, replies)
	l.quiet()
	l.onlyAcknowledgements()
	if after := l.state(); after != before {
		t.Errorf("an edge changed something. Before:\n%s\nafter:\n%s", before, after)
	}
}

// The answer to a direct get never leaves the account of those who read: neither the API,
// nor a user, nor a bucket sees it.
func TestReadsStayWithReaders(t *testing.T) {
	l := lay(t, nil)
	before := l.state()
	seen, err := l.js.Conn().SubscribeSync(">")
	if err != nil {
		t.Fatal(err)
	}
	if err := seen.SetPendingLimits(-1, -1); err != nil {
		t.Fatal(err)
	}
	if err := l.js.Conn().Flush(); err != nil {
		t.Fatal(err)
	}
	ann := userid.MustParse("ann")
	others := []string{subject.Up(0, ann), subject.Down(0, ann), subject.Live(0, ann), subject.Dead(0, ann), "$KV.workers.lease.eve", "$KV.suspects.0", "_INBOX_worker.x"}
	replies := append(aims(l.down), others...)
	bodies := [][]byte{fmt.Appendf(nil, `{"seq":%d}`, l.seq), nil, []byte(`{"multi_last":["im.down.>"]}`)}
	l.ask(l.connect("replay"), "$JS.API.DIRECT.GET."+l.down, bodies, replies)
	l.ask(l.connect("monitoring"), "look.STREAM.INFO."+l.down, [][]byte{nil}, replies)
	l.quiet()
	if after := l.state(); after != before {
		t.Errorf("who may only read changed something. Before:\n%s\nafter:\n%s", before, after)
	}
	for {
		m, err := seen.NextMsg(time.Millisecond)
		if err != nil {
			break
		}
		if slices.Contains(replies, m.Subject) {
			t.Errorf("an answer was published to %s: %v %.100q", m.Subject, m.Header, m.Data)
		}
	}
}

// The two tests above can fail: in one account the answer of a direct get deletes a stream.
func TestReadsInOneAccountDeleteStreams(t *testing.T) {
	l := lay(t, func(_, text string) string {
		return strings.Replace(text, `    "im.mark.*.*"`, `    "im.mark.*.*", "$JS.API.DIRECT.GET.*"`, 1)
	})
	before := l.state()
	l.ask(l.connect("edge"), "$JS.API.DIRECT.GET."+l.down, [][]byte{fmt.Appendf(nil, `{"seq":%d}`, l.seq)}, []string{"$JS.API.STREAM.DELETE." + stream.Dead})
	eventually(t, "the dead stream is deleted", func() bool { return l.state() != before })
}

// quiet waits until the server has worked what it took: the API answers in order of
// arrival, and a direct get's answer has been published when a later one's has come.
func (l *laid) quiet() {
	l.t.Helper()
	m, err := l.js.Conn().Request("$JS.API.STREAM.INFO."+l.down, nil, patience)
	if err != nil || !bytes.Contains(m.Data, []byte(l.down)) {
		l.t.Fatalf("the API does not answer: %v", err)
	}
}
