package tap_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.uber.org/goleak"

	"github.com/wirepost/wirepost/scripts/dev/tap"
	"github.com/wirepost/wirepost/scripts/servers"
)

// store connects a driver to FerretDB through a tap, and returns what the tap tells.
func store(t *testing.T) (*mongo.Collection, <-chan []tap.Insert) {
	t.Helper()
	uri := servers.Ferret(t)
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan []tap.Insert, 100)
	tp, err := tap.Start(u.Host, "messages", func(list []tap.Insert, at time.Time) {
		if age := time.Since(at); age < 0 || age > time.Minute {
			t.Errorf("told of a reply %v ago", age)
		}
		told <- list
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tp.Close)
	u.Host = tp.Addr()
	c, err := mongo.Connect(options.Client().ApplyURI(u.String()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Disconnect(t.Context()) })
	return c.Database(strings.TrimPrefix(u.Path, "/")).Collection("messages"), told
}

func doc(id int) bson.D {
	return bson.D{{Key: "_id", Value: fmt.Sprintf("c/%d", id)}, {Key: "from", Value: "alice"}, {Key: "cid", Value: fmt.Sprint(id)}}
}

func cids(list []tap.Insert) (out []string) {
	for _, in := range list {
		if in.From == "alice" {
			out = append(out, in.CID)
		}
	}
	return out
}

func TestWhatTheStoreAcknowledgedIsTold(t *testing.T) {
	messages, told := store(t)
	for _, c := range []struct {
		name    string
		ids     []int
		ordered bool
		want    []string
	}{
		{"all are new", []int{1, 2, 3}, true, []string{"1", "2", "3"}},
		{"unordered around a duplicate", []int{4, 2, 5}, false, []string{"4", "5"}},
		{"ordered up to a duplicate", []int{6, 1, 7}, true, []string{"6"}},
	} {
		var docs []any
		for _, id := range c.ids {
			docs = append(docs, doc(id))
		}
		_, err := messages.InsertMany(t.Context(), docs, options.InsertMany().SetOrdered(c.ordered))
		if err != nil && !mongo.IsDuplicateKeyError(err) {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := cids(<-told); !slices.Equal(got, c.want) {
			t.Errorf("%s: told of %q, want %q", c.name, got, c.want)
		}
	}
}

func TestOtherCommandsAreNotTold(t *testing.T) {
	messages, told := store(t)
	other := messages.Database().Collection("sessions")
	if _, err := other.InsertOne(t.Context(), doc(1)); err != nil {
		t.Fatal(err)
	}
	if _, err := messages.InsertOne(t.Context(), doc(1)); err != nil {
		t.Fatal(err)
	}
	if _, err := messages.InsertOne(t.Context(), doc(1)); !mongo.IsDuplicateKeyError(err) {
		t.Fatal(err)
	}
	if _, err := messages.UpdateByID(t.Context(), "c/1", bson.D{{Key: "$set", Value: bson.D{{Key: "cid", Value: "9"}}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := messages.InsertOne(t.Context(), doc(2)); err != nil {
		t.Fatal(err)
	}
	if got := [][]string{cids(<-told), cids(<-told)}; got[0][0] != "1" || got[1][0] != "2" {
		t.Errorf("told of %q", got)
	}
	if len(told) != 0 {
		t.Errorf("told of %v too", <-told)
	}
}

// TestEveryByteIsPassedOn: whatever it is, in whatever pieces, in both directions.
func TestEveryByteIsPassedOn(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // an echo
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}
	}()
	tp, err := tap.Start(l.Addr().String(), "messages", func([]tap.Insert, time.Time) { t.Error("told of noise") })
	if err != nil {
		t.Fatal(err)
	}
	defer tp.Close()
	for _, first := range [][]byte{{}, {0, 0, 0, 0}, {16, 0, 0, 0}, {255, 255, 255, 127}, {255, 255, 255, 255}, {40, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 221, 7, 0, 0}} {
		data := make([]byte, 200_000)
		rng := rand.NewChaCha8([32]byte{1})
		_, _ = rng.Read(data)
		copy(data, first)
		c, err := net.Dial("tcp", tp.Addr())
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for rest := data; len(rest) > 0; {
				n := min(len(rest), 1+rand.IntN(9000))
				if _, err := c.Write(rest[:n]); err != nil {
					t.Error(err)
					return
				}
				rest = rest[n:]
			}
		}()
		got := make([]byte, len(data))
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, data) {
			t.Errorf("first bytes %v: echo differs, %v", first, err)
		}
		_ = c.Close()
	}
}

func TestCloseCutsAndLeavesNothing(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tp, err := tap.Start(l.Addr().String(), "messages", func([]tap.Insert, time.Time) {})
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", tp.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	tp.Close()
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, net.ErrClosed) {
		t.Errorf("read after Close: %v, want the end", err)
	}
}
