package fleet

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/wirepost/wirepost/scripts/ports"
)

// pipe is a connection through a proxy, from both of its ends.
type pipe struct {
	client, server net.Conn
}

// proxied starts a proxy in front of a listener. connect opens one more connection.
func proxied(t testing.TB) (l *Link, connect func() pipe) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	p, err := newProxy(newProxies(), "test", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	return &Link{ways: []*proxy{p}}, func() pipe {
		t.Helper()
		client, err := net.Dial("tcp", p.addr())
		if err != nil {
			t.Fatal(err)
		}
		server, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = client.Close(), server.Close() })
		return pipe{client, server}
	}
}

func write(t testing.TB, c net.Conn, s string) {
	t.Helper()
	if _, err := c.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
}

// expect reads exactly s, within two seconds.
func expect(t testing.TB, c net.Conn, s string) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
	b := make([]byte, len(s))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != s {
		t.Fatalf("read %q, %v, not %q", b, err, s)
	}
}

// expectNothing is true when nothing comes for a while, not even an end.
func expectNothing(t testing.TB, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, err := c.Read(make([]byte, 1)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read %d bytes, %v", n, err)
	}
}

func expectEnd(t testing.TB, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
	if b, err := io.ReadAll(c); err != nil && errors.Is(err, os.ErrDeadlineExceeded) || len(b) > 0 {
		t.Fatalf("read %q, %v, not the end", b, err)
	}
}

func TestLinkPassesBothWays(t *testing.T) {
	_, connect := proxied(t)
	c := connect()
	write(t, c.client, "there")
	expect(t, c.server, "there")
	write(t, c.server, "back")
	expect(t, c.client, "back")
	_ = c.client.Close()
	expectEnd(t, c.server)
}

func TestCutSwallowsUntilRestore(t *testing.T) {
	l, connect := proxied(t)
	before := connect()
	write(t, before.client, "a")
	expect(t, before.server, "a")
	l.Cut()
	during := connect()
	for _, c := range []pipe{before, during} {
		write(t, c.client, "lost")
		write(t, c.server, "lost")
		expectNothing(t, c.client)
		expectNothing(t, c.server)
	}
	l.Restore()
	for _, c := range []pipe{before, during} {
		expectEnd(t, c.client)
		expectEnd(t, c.server)
	}
	after := connect()
	write(t, after.client, "b")
	expect(t, after.server, "b")
}

// A partition does not tell that the other one died.
func TestCutHidesTheEnd(t *testing.T) {
	l, connect := proxied(t)
	c := connect()
	l.Cut()
	_ = c.client.Close()
	expectNothing(t, c.server)
	l.Restore()
	expectEnd(t, c.server)
}

// What is slow stays in order, is late both ways, and is not slow any more afterwards.
func TestSlowKeepsOrder(t *testing.T) {
	l, connect := proxied(t)
	c := connect()
	const latency = 80 * time.Millisecond
	l.Slow(latency, latency/4)
	began := time.Now()
	for i := range byte(20) {
		write(t, c.client, string([]byte{'a' + i}))
	}
	expect(t, c.server, "abcdefghijklmnopqrst")
	write(t, c.server, "back")
	expect(t, c.client, "back")
	if took, least := time.Since(began), 2*(latency-latency/4); took < least || took > 10*latency {
		t.Errorf("there and back took %v with a latency of %v", took, latency)
	}
	l.Slow(time.Hour, 0)
	write(t, c.client, "held")
	expectNothing(t, c.server)
	l.Restore()
	expect(t, c.server, "held")
}

// Nothing that a link is told may wait for a receiver that does not read.
func TestVerbsDoNotWaitForAPausedReceiver(t *testing.T) {
	l, connect := proxied(t)
	c := connect()
	full := make(chan struct{})
	go func() {
		defer close(full)
		_ = c.client.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
		for {
			if _, err := c.client.Write(make([]byte, 1<<20)); err != nil {
				return
			}
		}
	}()
	<-full
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.Slow(time.Millisecond, 0)
		l.Cut()
		l.Restore()
	}()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatal("a verb waits for the receiver")
	}
}

// Who dials through a proxy to a process that is down is told so.
func TestProxyToNobodyCloses(t *testing.T) {
	nobody, err := ports.Take()
	if err != nil {
		t.Fatal(err)
	}
	p, err := newProxy(newProxies(), "test", nobody)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	c, err := net.Dial("tcp", p.addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	expectEnd(t, c)
}

func TestComplaints(t *testing.T) {
	for _, tc := range []struct {
		name, log string
		want      []string
	}{
		{"nothing", "level=INFO msg=fine\nthe panic of others\n", nil},
		{"race", "a\nWARNING: DATA RACE\nb\n", []string{"WARNING: DATA RACE\nb\n"}},
		{"panic", "a\npanic: x\ngoroutine 1", []string{"panic: x\ngoroutine 1"}},
		{"fatal", "fatal error: all goroutines are asleep", []string{"fatal error: all goroutines are asleep"}},
		{"two", "panic: x" + string(bytes.Repeat([]byte("\n"), complaintLines)) + "panic: y",
			[]string{"panic: x" + string(bytes.Repeat([]byte("\n"), complaintLines-1)), "panic: y"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := complaints(tc.log); !slices.Equal(got, tc.want) {
				t.Errorf("%q", got)
			}
		})
	}
}

// BenchmarkLink measures what a link costs: it must never be what a run waits for.
func BenchmarkLink(b *testing.B) {
	_, connect := proxied(b)
	b.Run("throughput", func(b *testing.B) {
		c := connect()
		const size = 1 << 20
		var reader sync.WaitGroup
		reader.Go(func() { _, _ = io.CopyN(io.Discard, c.server, int64(b.N)*size) })
		b.SetBytes(size)
		for range b.N {
			if _, err := c.client.Write(make([]byte, size)); err != nil {
				b.Fatal(err)
			}
		}
		reader.Wait()
	})
	b.Run("roundtrip", func(b *testing.B) {
		c := connect()
		go func() { _, _ = io.Copy(c.server, c.server) }() // ends with the connection
		buf := make([]byte, 200)
		for range b.N {
			if _, err := c.client.Write(buf); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(c.client, buf); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// A limit holds for all connections together, and for none when it is lifted, also for a
// chunk that waits for it.
func TestLimit(t *testing.T) {
	l, connect := proxied(t)
	one, two := connect(), connect()
	const rate, part = 100_000, 15_000
	l.Limit(rate)
	began := time.Now()
	for _, c := range []pipe{one, two} {
		write(t, c.client, string(make([]byte, part)))
	}
	for _, c := range []pipe{one, two} {
		expect(t, c.server, string(make([]byte, part)))
	}
	if took := time.Since(began); took < 2*part*time.Second/rate {
		t.Errorf("%d bytes took %v at %d a second", 2*part, took, rate)
	}
	l.Limit(1)
	write(t, one.client, "late")
	expectNothing(t, one.server)
	l.Limit(0)
	expect(t, one.server, "late")
}
