package e2e

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wirepost/wirepost/scripts/servers"
)

// tool runs a built command to its end and returns what it printed.
func tool(ctx context.Context, t *testing.T, stdin, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(ctx, filepath.Join(binaries, name), args...)
	cmd.Env = []string{"JWT_HS256_SECRET=" + secret}
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %q: %v\n%s%s", name, args, err, out.String(), errs.String())
	}
	return out.String()
}

// The token tool's token opens a connection, and two terminals talk to each other.
func TestTerminalChat(t *testing.T) {
	ctx := testContext(t, 40*time.Second)
	s := start(t, servers.Ferret(t))
	tok := strings.TrimSpace(tool(ctx, t, "", "token", "-user", "alice", "-ttl", "1h"))
	c, _ := dialRaw(t, s.url(0), nil)
	c.text(loginText(tok))
	c.next()

	out := tool(ctx, t, "hello bob\nhow are you?\n", "chat", "-user", "alice", "-to", "bob", "-url", s.url(0))
	for _, want := range []string{"* connected to edge-0 as alice", "> hello bob   (sending)", "> hello bob   (stored, seq 1)", "> how are you?   (stored, seq 2)"} {
		if !strings.Contains(out, want) {
			t.Errorf("alice's terminal lacks %q:\n%s", want, out)
		}
	}
	out = tool(ctx, t, "fine\n", "chat", "-user", "bob", "-to", "alice", "-url", s.url(1))
	for _, want := range []string{"  alice: hello bob   (seq 1)", "  alice: how are you?   (seq 2)", "> fine   (stored, seq 3)"} {
		if !strings.Contains(out, want) {
			t.Errorf("bob's terminal lacks %q:\n%s", want, out)
		}
	}
}
