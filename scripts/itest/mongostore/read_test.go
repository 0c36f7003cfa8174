package mongostore_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/wirepost/wirepost/shared/userid"
	"github.com/wirepost/wirepost/worker/messaging"
)

// Every page is what the same cut of the whole conversation is.
func TestHistoryPages(t *testing.T) {
	onBoth(t, func(t *testing.T, uri string) {
		s := open(t, uri)
		const total = 90
		r := rand.New(rand.NewPCG(1, 2))
		var batch []messaging.NewMessage
		for i := range total {
			m := msg("k", "u", strconv.Itoa(i))
			m.Body = bytes.Repeat([]byte{'x'}, 1+r.IntN(100))
			batch = append(batch, m)
		}
		appendAll(t, s, batch...)
		all := whole(t, s, "k")
		for range 60 {
			q := messaging.HistoryQuery{Conv: "k", Limit: 1 + r.IntN(100), MaxBytes: 1 + r.IntN(4000)}
			at := int64(r.IntN(total+20) - 10)
			switch r.IntN(3) {
			case 0:
				q.After = &at
			case 1:
				q.Before = &at
			}
			msgs, more, err := s.History(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			want, wantMore := expectPage(all, q)
			if !slices.EqualFunc(msgs, want, func(a, b messaging.StoredMessage) bool { return a.Seq == b.Seq && bytes.Equal(a.Body, b.Body) }) || more != wantMore {
				t.Fatalf("query %+v at %d: %d messages, more %v; want %d, %v", q, at, len(msgs), more, len(want), wantMore)
			}
		}
		for _, conv := range []string{"", "nobody", "k/", "k/0000000000000001"} {
			if msgs, more, err := s.History(t.Context(), messaging.HistoryQuery{Conv: conv, Limit: 10, MaxBytes: 1000}); len(msgs) != 0 || more || err != nil {
				t.Errorf("conversation %q: %d messages, %v, %v", conv, len(msgs), more, err)
			}
		}
	})
}

// expectPage is History over a slice.
func expectPage(all []messaging.StoredMessage, q messaging.HistoryQuery) ([]messaging.StoredMessage, bool) {
	var in []messaging.StoredMessage // candidates, the first to be taken first
	for _, m := range all {
		if (q.After == nil || m.Seq > *q.After) && (q.Before == nil || m.Seq < *q.Before) {
			in = append(in, m)
		}
	}
	if q.After == nil {
		slices.Reverse(in)
	}
	n, size := 0, 0
	for n < len(in) && n < q.Limit && (n == 0 || size+len(in[n].Body) <= q.MaxBytes) {
		size += len(in[n].Body)
		n++
	}
	page, more := slices.Clone(in[:n]), n < len(in)
	if q.After == nil {
		slices.Reverse(page)
	}
	return page, more
}

func TestConversationsLatestFirst(t *testing.T) {
	onBoth(t, func(t *testing.T, uri string) {
		s := open(t, uri)
		u := userid.MustParse("u")
		base := time.Now().UnixMilli()
		var batch []messaging.NewMessage
		order := rand.New(rand.NewPCG(3, 4)).Perm(25)
		for i, at := range order {
			m := msg("k"+strconv.Itoa(i), "u", strconv.Itoa(i))
			m.TS = base + int64(at)
			batch = append(batch, m)
		}
		appendAll(t, s, batch...)
		late := msg("k7", "u", "late") // an old conversation becomes the latest
		late.TS = base + 1000
		appendAll(t, s, late)
		// A conversation whose only message was refused is in nobody's list.
		reused := msg("empty", "u", "late")
		if r := appendAll(t, s, reused); r[0].Outcome != messaging.Reused {
			t.Fatalf("%+v", r)
		}
		var got []messaging.Conversation
		cursor := ""
		for {
			page, next, err := s.Conversations(t.Context(), u, 10, cursor)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, page...)
			if cursor = next; next == "" {
				break
			}
		}
		if len(got) != len(order) || got[0].Conv != "k7" || got[0].Last.CID != "late" || got[0].Last.Seq != 2 {
			t.Fatalf("%d conversations, the first %+v", len(got), got[0])
		}
		for i := 1; i < len(got); i++ {
			if got[i].Last.TS > got[i-1].Last.TS {
				t.Errorf("conversation %d is later than the one before it", i)
			}
		}
		ids, err := s.ConversationIDs(t.Context(), u)
		if err != nil || len(ids) != len(order)+1 || !slices.IsSorted(ids) {
			t.Errorf("ids %v, %v", ids, err)
		}
		for _, bad := range []string{"x", "zz", "!/"} {
			if page, next, err := s.Conversations(t.Context(), u, 10, bad); len(page) > 0 || next != "" || err != nil {
				t.Errorf("cursor %q: %d conversations, %q, %v", bad, len(page), next, err)
			}
		}
		if page, next, err := s.Conversations(t.Context(), userid.MustParse("nobody"), 10, ""); len(page) > 0 || next != "" || err != nil {
			t.Errorf("of nobody: %d conversations, %q, %v", len(page), next, err)
		}
	})
}

// The order of lists outlives the process: hints are written when it closes.
func TestOrderOfListsAfterARestart(t *testing.T) {
	onBoth(t, func(t *testing.T, uri string) {
		t.Run("first process", func(t *testing.T) {
			s := open(t, uri)
			for i := range 3 {
				m := msg("k"+strconv.Itoa(i), "u", strconv.Itoa(i))
				m.TS = int64(1000 + i)
				appendAll(t, s, m)
			}
			m := msg("k0", "u", "late")
			m.TS = 5000
			appendAll(t, s, m)
		})
		page, _, err := open(t, uri).Conversations(t.Context(), userid.MustParse("u"), 1, "")
		if err != nil || len(page) != 1 || page[0].Conv != "k0" {
			t.Errorf("first of the list is %+v, %v", page, err)
		}
	})
}

func TestSessions(t *testing.T) {
	onBoth(t, func(t *testing.T, uri string) {
		s, db := open(t, uri), database(t, uri)
		event := func(conn, edge string, closed bool) messaging.SessionEvent {
			return messaging.SessionEvent{Conn: conn, Edge: edge, User: userid.MustParse("ü"), DeviceID: "d.$", Addr: "127.0.0.1:1", At: time.Now(), Closed: closed}
		}
		batch := []messaging.SessionEvent{event("a1", "a", false), event("a2", "a", false), event("b1", "b", false),
			event("a2", "a", true), event("b2", "b", false), event("gone", "b", true)}
		for range 2 { // a batch that comes again changes nothing
			if err := s.ApplySessions(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
			if n := count(t, db, "sessions"); n != 3 {
				t.Errorf("%d sessions, want 3", n)
			}
		}
		// A redelivered connect whose disconnect is in the same batch is undone.
		if err := s.ApplySessions(t.Context(), []messaging.SessionEvent{event("b2", "b", false), event("b2", "b", true)}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // as the janitor has it: FerretDB's distinct knows no deadline
		defer cancel()
		edges, err := s.EdgesWithSessions(ctx)
		slices.Sort(edges)
		if err != nil || !slices.Equal(edges, []string{"a", "b"}) {
			t.Errorf("edges are %v, %v", edges, err)
		}
		if n, err := s.DropEdge(t.Context(), "b"); n != 1 || err != nil {
			t.Errorf("dropped %d sessions, %v; want 1", n, err)
		}
		if edges, err := s.EdgesWithSessions(t.Context()); err != nil || !slices.Equal(edges, []string{"a"}) {
			t.Errorf("edges are %v, %v", edges, err)
		}
		if err := s.ApplySessions(t.Context(), nil); err != nil {
			t.Error(err)
		}
	})
}
