package downlink

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/wirepost/wirepost/edge/users"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/subject"
	"github.com/wirepost/wirepost/shared/userid"
)

type sink struct{ frames, bytes int }

func (*sink) Attached(bool, Token) {}
func (*sink) AttachFailed(error)   {}
func (*sink) Moved(Token)          {}
func (*sink) Resync(Token)         {}
func (s *sink) Deliver(f Frame)    { s.frames++; s.bytes += len(f.Data) }

// BenchmarkLive is a live frame on its way from nats.go's channel to each of a user's
// receivers.
func BenchmarkLive(b *testing.B) {
	for _, devices := range []int{1, 4} {
		b.Run(fmt.Sprint("devices=", devices), func(b *testing.B) {
			d := &Downlink{cfg: Config{Shards: 1, Hubs: 1}, m: newMetrics(nil)}
			h := newHub(d, 0)
			name := stream.DownName{Shards: 1, Epoch: "k3x9", Shard: 0}
			sh := h.shards[0]
			sh.life.name, sh.life.in = name.String(), NewToken("k3x9", 0, 1).in
			const n = 1024
			msgs := make([]*nats.Msg, n)
			out := &sink{}
			for i := range msgs {
				id := userid.MustParse("u" + strconv.Itoa(i))
				u := sh.users.Add(id)
				u.X.pos = 1
				for k := range devices {
					u.Join(slot{Receiver: &struct{ sink }{}, Conn: users.ConnHash(strconv.Itoa(k)), Last: 1})
					u.At(k).Receiver = out
				}
				msgs[i] = &nats.Msg{Subject: subject.Live(0, id), Data: make([]byte, 200), Header: nats.Header{
					hStream: {sh.life.name}, hSequence: {"0"}, hLast: {"1"},
				}}
				copy(msgs[i].Data, `{"msgType":3}`)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				m := msgs[i%n]
				m.Header[hLast][0] = m.Header[hSequence][0]
				m.Header[hSequence][0] = strconv.Itoa(i + 2)
				if m.Header[hLast][0] == "0" {
					m.Header[hLast][0] = "1"
				}
				h.frame(m)
			}
			if out.frames != b.N*devices {
				b.Fatalf("%d frames were delivered, want %d", out.frames, b.N*devices)
			}
		})
	}
}
