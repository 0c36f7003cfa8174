package mongostore_test

import (
	"bytes"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"golang.org/x/sys/unix"

	"github.com/wirepost/wirepost/scripts/servers"
	"github.com/wirepost/wirepost/worker/messaging"
)

func benchBoth(b *testing.B, bench func(b *testing.B, uri string)) {
	b.Run("mongodb", func(b *testing.B) { bench(b, servers.Mongo(b)) })
	b.Run("ferretdb", func(b *testing.B) { bench(b, servers.Ferret(b)) })
}

// cpu is the processor time of this process and of the store's server, in microseconds;
// FerretDB's is part of this process.
type cpu struct{ client, server float64 }

func cpuNow(b *testing.B, uri string) (c cpu) {
	b.Helper()
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		b.Fatal(err)
	}
	c.client = float64(ru.Utime.Nano()+ru.Stime.Nano()) / 1000
	var status struct {
		Extra struct {
			User   int64 `bson:"user_time_us"`
			System int64 `bson:"system_time_us"`
		} `bson:"extra_info"`
	}
	err := database(b, uri).RunCommand(b.Context(), bson.D{{Key: "serverStatus", Value: 1}}).Decode(&status)
	if err == nil {
		c.server = float64(status.Extra.User + status.Extra.System)
	}
	return c
}

// report adds rates and processor time per message to a benchmark's line.
func report(b *testing.B, uri string, since cpu, msgs int) {
	b.Helper()
	took := b.Elapsed().Seconds()
	now := cpuNow(b, uri)
	b.ReportMetric(float64(msgs)/took, "msgs/s")
	b.ReportMetric((now.client-since.client)/float64(msgs), "client-µs/msg")
	b.ReportMetric((now.server-since.server)/float64(msgs), "server-µs/msg")
}

var benchCID atomic.Int64

// batchOf returns messages spread over conversations.
func batchOf(size, convs int) []messaging.NewMessage {
	body := bytes.Repeat([]byte{'x'}, 120)
	batch := make([]messaging.NewMessage, size)
	for i := range batch {
		n := benchCID.Add(1)
		batch[i] = msg("d:k"+strconv.Itoa(int(n)%convs)+":peer", "k"+strconv.Itoa(int(n)%convs), strconv.FormatInt(n, 36))
		batch[i].Body = body
	}
	return batch
}

// BenchmarkAppend is a lane's commit: one op is one batch. Conversations ≫ batch is the
// usual case, one conversation the demo's "send 1,000".
func BenchmarkAppend(b *testing.B) {
	benchBoth(b, func(b *testing.B, uri string) {
		for _, c := range []struct{ size, convs int }{{1, 1000}, {10, 1000}, {50, 1000}, {200, 1000}, {500, 1000}, {200, 100}, {200, 1}} {
			b.Run(fmt.Sprintf("batch=%d/convs=%d", c.size, c.convs), func(b *testing.B) {
				s := open(b, uri)
				for warm := 0; warm < c.convs; warm += 500 {
					appendAll(b, s, batchOf(min(500, c.convs), c.convs)...)
				}
				start := cpuNow(b, uri)
				b.ResetTimer()
				for range b.N {
					if _, err := s.Append(b.Context(), batchOf(c.size, c.convs)); err != nil {
						b.Fatal(err)
					}
				}
				report(b, uri, start, c.size*b.N)
			})
		}
	})
}

// BenchmarkAppendLanes is eight lanes of one worker at the same time.
func BenchmarkAppendLanes(b *testing.B) {
	benchBoth(b, func(b *testing.B, uri string) {
		const size = 200
		s := open(b, uri)
		for range 10 {
			appendAll(b, s, batchOf(500, 5000)...)
		}
		b.SetParallelism(4)
		start := cpuNow(b, uri)
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := s.Append(b.Context(), batchOf(size, 5000)); err != nil {
					b.Error(err)
					return
				}
			}
		})
		report(b, uri, start, size*b.N)
	})
}

func BenchmarkHistoryLast50(b *testing.B) {
	benchBoth(b, func(b *testing.B, uri string) {
		s := open(b, uri)
		for range 20 {
			appendAll(b, s, batchOf(500, 20)...)
		}
		b.ResetTimer()
		for i := range b.N {
			msgs, _, err := s.History(b.Context(), messaging.HistoryQuery{Conv: "d:k" + strconv.Itoa(i%20) + ":peer", Limit: 50, MaxBytes: 1 << 18})
			if err != nil || len(msgs) != 50 {
				b.Fatal(len(msgs), err)
			}
		}
	})
}

func BenchmarkConversations(b *testing.B) {
	benchBoth(b, func(b *testing.B, uri string) {
		s := open(b, uri)
		var batch []messaging.NewMessage
		for i := range 200 {
			batch = append(batch, msg("k"+strconv.Itoa(i), "u", strconv.Itoa(i)))
		}
		appendAll(b, s, batch...)
		time.Sleep(1500 * time.Millisecond) // the hints are written once a second, without a signal
		b.ResetTimer()
		for range b.N {
			if convs, _, err := s.Conversations(b.Context(), batch[0].From, 20, ""); err != nil || len(convs) != 20 {
				b.Fatal(len(convs), err)
			}
		}
	})
}
