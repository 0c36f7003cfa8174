package conformance

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// mutants are breaks of the edge's own code, made for one build each. Every group has
// one, and the named cases must notice it.
var mutants = []struct {
	name     string
	file     string // below edge/socket
	old, new string // old is there once
	pieces   string // of the server, see echo's flag
	noticed  []string
}{
	{"an echo of 126 bytes has a length of 7 bits", "write.go", "case n < 126:\n\t\treturn append(b, byte(n))", "case n < 127:\n\t\treturn append(b, byte(n))",
		"whole", []string{"1.1.3", "1.2.3"}},
	{"a pong is empty", "conn.go", "c.send(ws.OpPong, ev.data)", "c.send(ws.OpPong, nil)", "whole", []string{"2.2", "2.9", "5.6"}},
	{"a control frame may be longer", "parser.go", "second&0x7f > ws.MaxControlFramePayloadSize", "second&0x7f > ws.MaxControlFramePayloadSize+1",
		"whole", []string{"2.5", "7.3.6"}},
	{"RSV2 is not looked at", "parser.go", "first&0x70 != 0", "first&0x50 != 0", "whole", []string{"3.2"}},
	{"RSV3 is not looked at", "parser.go", "first&0x70 != 0", "first&0x60 != 0", "whole", []string{"3.1"}},
	{"reserved opcodes are data", "parser.go", "case op.IsReserved():\n\t\treturn faultOpCode\n\tcase assembling:", "case assembling:",
		"whole", []string{"4.1.1", "4.1.2", "4.1.3"}},
	{"reserved opcodes are control frames", "parser.go", "case op.IsReserved():\n\t\t\treturn faultOpCode\n\t\tcase first", "case first",
		"whole", []string{"4.2.1", "4.2.5"}},
	{"a message may begin inside another", "parser.go", "case assembling:", "case assembling && first&0x80 == 0:", "whole", []string{"5.18"}},
	{"a continuation needs no message", "parser.go", "op == ws.OpContinuation && !assembling:", "op == ws.OpContinuation && !assembling && false:",
		"whole", []string{"5.9", "5.12", "5.16"}},
	{"a ping waits for the message around it", "conn.go", "case ws.OpPing:\n", "case ws.OpPing:\n\t\tif c.k.parser.msgOp != 0 || c.w != nil && c.w.parser.msgOp != 0 {\n\t\t\treturn\n\t\t}\n",
		"whole", []string{"5.6", "5.19"}},
	{"text is checked when it is whole", "parser.go", "if p.msgOp == ws.OpText && !p.text.add(chunk) {", "if p.msgOp == ws.OpText && !p.text.add(chunk) && p.fin && p.got == p.size {",
		"whole", []string{"6.4.1", "6.4.3"}},
	{"a character may be cut off", "parser.go", "if p.msgOp == ws.OpText && !p.text.whole() {", "if p.msgOp == ws.OpText && !p.text.whole() && false {",
		"bytes", []string{"6.6.3", "6.14.7"}},
	{"text that is whole is not checked", "parser.go", "if p.op == ws.OpText && !utf8.Valid(chunk) {", "if p.op == ws.OpText && !utf8.Valid(chunk) && false {",
		"whole", []string{"6.3.1", "6.20.1"}},
	{"every close is answered 1000", "close.go", "c.queueClose(code, \"\")", "c.queueClose(code-code+ws.StatusNormalClosure, \"\")", "whole", []string{"7.3.1", "7.7.2", "7.7.13"}},
	{"any close code will do", "fault.go", "code > ws.StatusRangePrivate.Max", "code <= ws.StatusRangePrivate.Max {\n\t\treturn code, nil\n\t}\n\tif true",
		"whole", []string{"7.5.1", "7.9.1", "7.9.9"}},
	{"TCP ends at once behind a close", "close.go", "c.flush()\n\tif c.state != stClosed {", "c.drop(fShut)\n\tc.flush()\n\tc.closeSocket()\n\tif c.state != stClosed {",
		"bytes", []string{"7.1.2", "7.1.3", "7.1.5"}},
	{"the mask starts anew with each read", "parser.go", "ws.Cipher(chunk, p.mask, p.got)", "ws.Cipher(chunk, p.mask, 0)", "bytes", []string{"1.1.2", "9.1.1"}},
	{"a message has at most 50 fragments", "parser.go", "p.frags > lim.maxFragments", "p.frags > min(lim.maxFragments, 50)", "whole", []string{"9.3.1", "9.4.3", "10.1.1"}},
	{"a buffer that grows forgets", "buffer.go", "bigger = append(bigger, b...)", "bigger = append(bigger, b[:len(b)/2]...)", "bytes", []string{"9.2.1", "10.1.1"}},
}

// TestMutants builds the server with each mutant and lets the cases notice it.
func TestMutants(t *testing.T) {
	if raceDetector {
		t.Skip("each mutant is a build of its own, and is noticed alike without the race detector")
	}
	cases := map[string]Case{}
	for _, c := range Cases() {
		cases[c.ID] = c
	}
	for _, m := range mutants {
		t.Run(strings.ReplaceAll(m.name, " ", "-"), func(t *testing.T) {
			t.Parallel() // one links while another waits for a case that does not end
			addr := startProcess(t, buildWith(t, m.file, m.old, m.new), m.pieces)
			for _, id := range m.noticed {
				c, ok := cases[id]
				if !ok {
					t.Fatalf("there is no case %s", id)
				}
				// A mutant may leave a case without an end: that is noticed too.
				err := Play(addr, c.Script(), 5*time.Second)
				if err == nil {
					t.Errorf("%s does not notice that %s", id, m.name)
					continue
				}
				t.Logf("%s: %v", id, err)
			}
		})
	}
}

func TestEveryGroupHasAMutant(t *testing.T) {
	groups := map[int]bool{}
	for _, m := range mutants {
		for _, id := range m.noticed {
			groups[Case{ID: id}.Group()] = true
		}
	}
	for _, g := range []int{1, 2, 3, 4, 5, 6, 7, 9, 10} {
		if !groups[g] {
			t.Errorf("no mutant is to be noticed in group %d", g)
		}
	}
}

// TestWithoutMutant: the same build and process, unchanged, pass what the mutants fail.
func TestWithoutMutant(t *testing.T) {
	binary := build(t)
	for _, pieces := range []string{"whole", "bytes", "random"} {
		addr := startProcess(t, binary, pieces)
		for _, c := range Cases() {
			if c.Group() != 9 {
				if err := Play(addr, c.Script(), patience); err != nil {
					t.Errorf("%s, %s: %v", c.ID, pieces, err)
				}
			}
		}
	}
}

// buildWith builds the echo server with one change of edge/socket.
func buildWith(t *testing.T, file, old, changed string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../../edge/socket", file))
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(source), old) != 1 {
		t.Fatalf("%s holds %q %d times: the mutant must follow the code", file, old, strings.Count(string(source), old))
	}
	dir := t.TempDir()
	mutated, overlay := filepath.Join(dir, file), filepath.Join(dir, "overlay.json")
	list, err := json.Marshal(map[string]any{"Replace": map[string]string{path: mutated}})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{mutated: []byte(strings.Replace(string(source), old, changed, 1)), overlay: list} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return build(t, "-overlay", overlay)
}

func build(t *testing.T, flags ...string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "echo")
	cmd := exec.Command("go", append(append([]string{"build", "-buildvcs=false", "-ldflags=-s -w", "-o", binary}, flags...), "./echo")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return binary
}

// startProcess runs the echo server until the test's end and returns its address.
func startProcess(t *testing.T, binary, pieces string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, binary, "-listen", "127.0.0.1:0", "-pieces", pieces)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the server says nothing: %v", err)
	}
	return strings.TrimSpace(strings.TrimPrefix(line, "ws://"))
}
