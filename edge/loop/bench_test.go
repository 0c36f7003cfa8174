package loop_test

import (
	"net"
	"sync"
	"testing"
)

// BenchmarkEcho is one round trip over loopback: by one connection (the loop sleeps
// between) and by 64 at once (it hardly does).
func BenchmarkEcho(b *testing.B) {
	for _, c := range []struct {
		name  string
		conns int
	}{{"conns=1", 1}, {"conns=64", 64}} {
		b.Run(c.name, func(b *testing.B) {
			e := &echo{}
			addr := start(b, e, 0)
			var wg sync.WaitGroup
			conns := make([]net.Conn, c.conns)
			for i := range conns {
				conns[i] = dial(b, addr)
			}
			b.ResetTimer()
			for _, conn := range conns {
				wg.Go(func() {
					msg := make([]byte, 64)
					for range b.N / c.conns {
						if _, err := conn.Write(msg); err != nil {
							b.Error(err)
							return
						}
						if _, err := conn.Read(msg); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

// BenchmarkPost is one message to a loop that is awake most of the time.
func BenchmarkPost(b *testing.B) {
	e := &echo{}
	start(b, e, 0)
	b.ReportAllocs()
	n := 0
	done := make(chan bool)
	f := func() {
		if n++; n == b.N {
			done <- true
		}
	}
	for range b.N {
		e.l.Post(f)
	}
	<-done
}

// BenchmarkArm is the timer of one connection set anew.
func BenchmarkArm(b *testing.B) {
	e := &echo{}
	done := make(chan bool)
	addr := start(b, e, 0)
	conn := dial(b, addr)
	roundTrip(b, conn, "x")
	b.ReportAllocs()
	b.ResetTimer()
	e.readable = nil
	e.l.Post(func() {
		k := e.l.FirstKey()
		for range b.N {
			e.l.Arm(k, 25e9)
		}
		done <- true
	})
	<-done
}
