package conformance

import (
	"bufio"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// everyByte makes a read of each byte of the large messages too: 130 million reads.
var everyByte = flag.Bool("every-byte", false, "cut messages of 4 to 16 MiB at every byte, too: 5 minutes")

// patience is for the slowest case: 16 MiB, of which each byte is a read.
const patience = 5 * time.Minute

// seed of the cuts at random. Another one each day would make a failure hard to find
// again; the fuzz targets look for new cuts.
const seed = 20261125

// ways are the cuts of the stream, decided by the server's reads.
var ways = []string{"whole", "bytes", "random"}

func piecesOf(way string, c Case, length int) Pieces {
	h := fnv.New64a()
	_, _ = h.Write([]byte(c.ID))
	random := seed ^ h.Sum64()
	switch {
	case way == "whole":
		return nil
	case way == "random":
		return RandomPieces(random)
	case length > 4<<20 && !*everyByte:
		// edge/socket cuts these at every byte without a read for each.
		rng := rand.New(rand.NewPCG(random, 0))
		return func() int { return 1 + rng.IntN(64) }
	}
	return SingleBytes
}

// echo is a server for one test; every case gets a new one, so that its cuts depend on
// nothing but its number.
func echo(t *testing.T, pieces Pieces) *Echo {
	t.Helper()
	e, err := StartEcho("127.0.0.1:0", pieces)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// TestCases is promise P9: 301 cases, each three ways.
func TestCases(t *testing.T) {
	var passed [3]atomic.Int64
	t.Run("all", func(t *testing.T) {
		for _, c := range Cases() {
			for i, way := range ways {
				t.Run(c.ID+"/"+way, func(t *testing.T) {
					t.Parallel()
					if way == "bytes" && skipBytes(c) {
						t.Skip("a read for each byte is too slow under the race detector")
					}
					s := c.Script()
					length := 0
					for _, part := range s.Parts {
						length += len(part.Send)
					}
					if err := Play(echo(t, piecesOf(way, c, length)).Addr, s, patience); err != nil {
						t.Fatal(err)
					}
					passed[i].Add(1)
				})
			}
		}
	})
	for i, way := range ways {
		t.Logf("%s: %d cases passed", way, passed[i].Load())
	}
}

// skipBytes: under the race detector a read of one byte costs some ten times as much,
// so group 9 is cut at every byte without it alone.
func skipBytes(c Case) bool { return raceDetector && c.Group() == 9 }

// TestCaseList: the numbers are those of the suite, each once. The suite's own list is
// compared when it runs (autobahn).
func TestCaseList(t *testing.T) {
	seen := map[string]bool{}
	groups := map[int]int{}
	for _, c := range Cases() {
		if seen[c.ID] {
			t.Errorf("%s is there twice", c.ID)
		}
		seen[c.ID] = true
		groups[c.Group()]++
	}
	want := map[int]int{1: 16, 2: 11, 3: 7, 4: 10, 5: 20, 6: 145, 7: 37, 9: 54, 10: 1}
	if fmt.Sprint(groups) != fmt.Sprint(want) || len(seen) != 301 {
		t.Errorf("%d cases, by group %v, want %v", len(seen), groups, want)
	}
}

// TestRandomPiecesCut: the cuts at random are what they are said to be, and the same for
// the same seed.
func TestRandomPiecesCut(t *testing.T) {
	a, b := RandomPieces(1), RandomPieces(1)
	small, large := 0, 0
	for range 1000 {
		n := a()
		if n != b() || n < 1 || n > 16<<10 {
			t.Fatalf("a piece of %d bytes", n)
		}
		switch {
		case n <= 8:
			small++
		case n > 1<<10:
			large++
		}
	}
	if small < 400 || large < 50 {
		t.Errorf("%d small pieces, %d large ones of 1000", small, large)
	}
}

// TestAnswerIsChecked: a server that is none is no server.
func TestAnswerIsChecked(t *testing.T) {
	for name, answer := range map[string]string{
		"refused":      "HTTP/1.1 404 Not Found\r\n\r\n",
		"wrong accept": "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOp=\r\n\r\n",
		"no HTTP":      "hello\r\n",
		"cut":          "HTTP/1.1 101 Switching Protocols\r\n",
	} {
		if err := CheckAnswer(bufio.NewReader(strings.NewReader(answer))); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}
