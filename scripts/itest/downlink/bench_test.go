package downlink

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/wirepost/wirepost/edge/downlink"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
)

// counter is a receiver that only counts.
type counter struct{ attached, frames *atomic.Int64 }

func (c *counter) Attached(bool, downlink.Token) { c.attached.Add(1) }
func (c *counter) AttachFailed(err error)        { panic(err) }
func (c *counter) Deliver(downlink.Frame)        { c.frames.Add(1) }
func (c *counter) Moved(downlink.Token)          {}
func (c *counter) Resync(downlink.Token)         {}

func attachAll(b *testing.B, e *edge, n int) (ids []userid.ID, frames *atomic.Int64) {
	b.Helper()
	c := &counter{attached: new(atomic.Int64), frames: new(atomic.Int64)}
	all := make([]counter, n)
	for i := range n {
		ids = append(ids, userid.MustParse(fmt.Sprint("user-", i)))
	}
	b.ResetTimer()
	for i := range n {
		all[i] = *c
		e.Attach(&all[i], ids[i], "", "")
	}
	eventually(b, "all logins", func() bool { return c.attached.Load() == int64(n) })
	return ids, c.frames
}

// BenchmarkUsers is the heap that one user with one receiver costs: the table's and
// nats.go's part, without the receiver.
func BenchmarkUsers(b *testing.B) {
	url := childServer(b)
	nc, err := nats.Connect(url)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(nc.Close)
	ensure(b, nc, layout(1))
	e := newEdge(b, url)
	eventually(b, "readiness", e.Ready)
	const n = 100_000
	if b.N > 1 {
		b.Skip("it measures once: -benchtime 1x")
	}
	before := heap()
	ids, _ := attachAll(b, e, n)
	b.StopTimer()
	receivers := n * (16 + 16 + 16) // the counter, its id and the id's string
	b.ReportMetric(float64(heap()-before-int64(receivers))/n, "heap-B/user")
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "logins/s")
	runtime.KeepAlive(ids)
	runtime.KeepAlive(e)
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkDownlink is a frame from its publish to the receiver, over a nats-server in
// another process.
func BenchmarkDownlink(b *testing.B) {
	url := childServer(b)
	nc, err := nats.Connect(url)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(nc.Close)
	ensure(b, nc, layout(1))
	e := newEdge(b, url)
	ids, frames := attachAll(b, e, 1000)
	pub, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(1000))
	if err != nil {
		b.Fatal(err)
	}
	data := append([]byte(`{"msgType":3,"x":"`), make([]byte, 200)...)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		u := ids[i%len(ids)]
		if _, err := pub.PublishAsync(subject.Down(subject.Shard(u, shards), u), data); err != nil {
			b.Fatal(err)
		}
	}
	eventually(b, "all frames", func() bool { return frames.Load() == int64(b.N) })
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "frames/s")
	if n := e.count(b, "gaps_total"); n != 0 {
		b.Errorf("%v gaps", n)
	}
}

// BenchmarkLasts is what a sweep asks nats-server for: the last frames of 1,023 users, of
// 50,000 in a stream of 200,000 frames. bounded is the same question up to a marker behind
// which frames were stored meanwhile.
func BenchmarkLasts(b *testing.B) {
	url := childServer(b)
	nc, err := nats.Connect(url)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(nc.Close)
	js := ensure(b, nc, layout(1))
	user := func(i int) userid.ID { return userid.MustParse(fmt.Sprint("user-", i)) }
	const shard = 0
	data := []byte(`{"bizType":"im","msgBody":"` + strings.Repeat("x", 200) + `"}`)
	var users []userid.ID
	for i := 0; len(users) < 50_000; i++ {
		if u := user(i); subject.Shard(u, shards) == shard {
			users = append(users, u)
		}
	}
	for i := range 200_000 {
		if _, err := js.PublishAsync(subject.Down(shard, users[i%len(users)]), data); err != nil {
			b.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
	name := downName(b, js, users[0].String())
	st, err := js.Stream(b.Context(), name)
	if err != nil {
		b.Fatal(err)
	}
	last := st.CachedInfo().State.LastSeq
	for kind, bound := range map[string]uint64{"whole": 0, "bounded": last - 100} {
		b.Run(kind, func(b *testing.B) {
			for n := 0; b.Loop(); n++ {
				req := map[string]any{"seq": last + 1, "multi_last": []string{}}
				if bound > 0 {
					req["up_to_seq"] = bound
				}
				var subjects []string
				for i := range 1023 {
					subjects = append(subjects, subject.Down(shard, users[(n*1023+i)%len(users)]))
				}
				req["multi_last"] = subjects
				body, err := json.Marshal(req)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := nc.Request("$JS.API.DIRECT.GET."+name, body, time.Minute); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
