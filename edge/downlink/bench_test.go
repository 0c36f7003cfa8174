package downlink

import (
	"bytes"
	"fmt"
	"strconv"
	"testing"

	"github.com/wirepost/wirepost/edge/feed"
	"github.com/wirepost/wirepost/edge/users"
	"github.com/wirepost/wirepost/shared/stream"
	"github.com/wirepost/wirepost/shared/userid"
)

type sink struct{ frames, bytes int }

func (*sink) Attached(bool, Token) {}
func (*sink) AttachFailed(error)   {}
func (*sink) Moved(Token)          {}
func (*sink) Resync(Token)         {}
func (s *sink) Deliver(f Frame)    { s.frames++; s.bytes += len(f.Data) }

// BenchmarkLive is a live frame on its way from the feed's buffer to each of a user's
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
			frames, last := make([]*feed.Frame, n), make([]uint64, n)
			out := &sink{}
			for i := range frames {
				id := userid.MustParse("u" + strconv.Itoa(i))
				u := sh.users.Add(id)
				u.X.pos = 1
				for k := range devices {
					u.Join(slot{Receiver: &struct{ sink }{}, Conn: users.ConnHash(strconv.Itoa(k)), Last: 1})
					u.At(k).Receiver = out
				}
				data := make([]byte, 200)
				copy(data, `{"msgType":3}`)
				frames[i], last[i] = republished(id, sh.life.name, digits, digits, data), 1
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				f := frames[i%n]
				setNumber(f, hLast, last[i%n])
				last[i%n] = uint64(i) + 2
				setNumber(f, hSequence, last[i%n])
				h.frame(f)
			}
			if out.frames != b.N*devices {
				b.Fatalf("%d frames were delivered, want %d", out.frames, b.N*devices)
			}
		})
	}
}

// digits has as many as setNumber writes.
const digits = 1_000_000_000

// setNumber changes a header in place.
func setNumber(f *feed.Frame, key string, n uint64) {
	at := bytes.Index(f.Header, []byte("\n"+key+": ")) + len(key) + 3
	for i := 9; i >= 0; i-- {
		f.Header[at+i] = byte('0' + n%10)
		n /= 10
	}
}
