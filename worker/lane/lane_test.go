package lane

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wirepost/wirepost/shared/stream"
)

func TestConfig(t *testing.T) {
	c, err := Config{Worker: "w-1_A"}.filled()
	if err != nil || c.Lanes != stream.DefaultLanes || c.Batch != 256 || c.PinnedTTL != stream.PinnedTTL || c.LeaseTTL != 3*time.Second || c.Missing == nil {
		t.Errorf("%+v, %v", c, err)
	}
	for _, bad := range []Config{{}, {Worker: "a.b"}, {Worker: "a b"}, {Worker: "*"}, {Worker: strings.Repeat("x", 65)},
		{Worker: "w", Lanes: -1}, {Worker: "w", Batch: -1}} {
		if _, err := bad.filled(); !errors.Is(err, errConfig) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// The statuses of nats-server 2.15 for pull requests, as it spells them.
func TestStatus(t *testing.T) {
	for text, want := range map[string]error{
		"408 Request Timeout":                nil,
		"404 No Messages":                    nil,
		"409 Message Size Exceeds MaxBytes":  nil,
		"409 Batch Completed":                nil,
		"423 Nats-Pin-Id mismatch":           errPinLost,
		"423 Nats-Wrong-Pin-Id":              errPinLost,
		"503 ":                               errNobody,
		"400 Bad Request - Invalid Priority": errRefused,
		"409 Consumer is push based":         errRefused,
		"409 Exceeded MaxWaiting":            errRefused,
		"409 Consumer Deleted":               errRefused,
		"409 Leadership Change":              errRefused,
		"409 Server Shutdown":                errRefused,
		"599 something that a newer one has": errRefused,
	} {
		f := &feed{inbox: "_INBOX.x", asked: map[int]int{3: 10}, credit: 10}
		code, description, _ := strings.Cut(text, " ")
		m := &nats.Msg{Subject: "_INBOX.x.3", Header: nats.Header{"Status": {code}, "Description": {description}, pendingHeader: {"10"}}}
		is, err := f.status(m)
		if !is || !errors.Is(err, want) {
			t.Errorf("%s: %v, %v, want %v", text, is, err, want)
		}
		if f.credit != 0 || len(f.asked) != 0 {
			t.Errorf("%s: %d messages still count as asked for", text, f.credit)
		}
	}
}

// What was asked for and not sent is asked for again; a message is no status.
func TestCredit(t *testing.T) {
	f := &feed{inbox: "_INBOX.x", asked: map[int]int{1: 10, 2: 5}, credit: 15}
	for range 4 {
		if is, err := f.status(&nats.Msg{Subject: "im.up.0.ann", Reply: "$JS.ACK.x"}); is || err != nil {
			t.Fatalf("%v, %v", is, err)
		}
	}
	end := func(serial, left string) {
		m := &nats.Msg{Subject: "_INBOX.x." + serial, Header: nats.Header{"Status": {"408"}, pendingHeader: {left}}}
		if is, err := f.status(m); !is || err != nil {
			t.Errorf("%v, %v", is, err)
		}
	}
	end("1", "6")
	if f.credit != 5 {
		t.Errorf("%d messages asked for, want 5", f.credit)
	}
	end("1", "6") // twice, or of an older run
	end("7", "6")
	if f.credit != 5 {
		t.Errorf("%d messages asked for, want 5", f.credit)
	}
	end("2", "5")
	if f.credit != 0 {
		t.Errorf("%d messages asked for, want none", f.credit)
	}
}
