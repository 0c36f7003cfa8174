// Command chat is a chat in a terminal, built on shared/client.
//
//	go run ./scripts/chat -user alice -to bob
//
// It prints one line for each thing that happens and sends each line of its input. At
// the end of the input it waits until every line is stored or refused. Tokens are made
// as by the command token.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"time"
	"unicode"

	"github.com/wirepost/wirepost/scripts/devkeys"
	"github.com/wirepost/wirepost/shared/client"
	"github.com/wirepost/wirepost/shared/protocol"
	"github.com/wirepost/wirepost/shared/userid"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Getenv(devkeys.Env), os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "chat:", err)
		stop()
		os.Exit(1)
	}
}

type flags struct {
	user, to, token, dir string
	urls                 []string
	history              int
	linger               time.Duration
	verbose              bool
}

func parseFlags(args []string) (flags, error) {
	var f flags
	var urls string
	set := flag.NewFlagSet("chat", flag.ExitOnError)
	set.StringVar(&f.user, "user", "", "who you are (needed)")
	set.StringVar(&f.to, "to", "", "whom you talk to (needed)")
	set.StringVar(&urls, "url", "ws://127.0.0.1:8081/ws", "the gateway; several with commas between")
	set.StringVar(&f.token, "token", "", "a token of yours; without, one is made with the development secret")
	set.StringVar(&f.dir, "data", devkeys.Dir, "the data folder of make run; "+devkeys.Env+" overrides its secret")
	set.IntVar(&f.history, "history", 20, "messages of history to begin with")
	set.DurationVar(&f.linger, "linger", 0, "how long to listen after the end of the input")
	set.BoolVar(&f.verbose, "v", false, "log what the client does")
	if err := set.Parse(args); err != nil {
		return f, err
	}
	f.urls = strings.Split(urls, ",")
	for name, id := range map[string]string{"-user": f.user, "-to": f.to} {
		if _, err := userid.Parse(id); err != nil {
			return f, fmt.Errorf("%s: %w", name, err)
		}
	}
	return f, nil
}

func run(ctx context.Context, args []string, secretEnv string, in io.Reader, out io.Writer) error {
	f, err := parseFlags(args)
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	if f.verbose {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	c, err := client.New(client.Options{URLs: f.urls, User: f.user, DeviceID: "terminal", Log: log,
		Token: func(context.Context) (string, error) {
			if f.token != "" {
				return f.token, nil
			}
			secret, err := devkeys.Choose(secretEnv, f.dir)
			if err != nil {
				return "", err
			}
			return devkeys.Token(secret, f.user, 24*time.Hour)
		}})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ran := make(chan error, 1)
	go func() { ran <- c.Run(ctx) }()
	t := &terminal{c: c, f: f, out: out, lines: lines(in), sent: map[string]string{}, here: map[string]bool{}}
	t.loop(ctx)
	cancel()
	for range c.Events() { // Run ends when nobody has to be told any more
	}
	return <-ran
}

// lines reads in line by line; the channel is closed at its end.
func lines(in io.Reader) <-chan string {
	ch := make(chan string)
	go func() { // ends with the input, or with the process
		defer close(ch)
		for s := bufio.NewScanner(in); s.Scan(); {
			if line := strings.TrimSpace(s.Text()); line != "" {
				ch <- line
			}
		}
	}()
	return ch
}

// terminal is one conversation on the screen.
type terminal struct {
	c     *client.Client
	f     flags
	out   io.Writer
	lines <-chan string     // nil after the end of the input
	sent  map[string]string // clientMsgId → text, of lines that are on their way

	here  map[string]bool // clientMsgIds that were sent by this program
	conv  string          // of the history that was shown
	shown int64           // its last seq
}

func (t *terminal) loop(ctx context.Context) {
	var input <-chan string // not before the history is shown
	var over <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-over:
			return
		case line, ok := <-input:
			if !ok {
				input, t.lines = nil, nil
				break
			}
			t.send(ctx, line)
		case ev, ok := <-t.c.Events():
			if !ok {
				return
			}
			if t.show(ev) {
				t.history(ctx)
				input = t.lines
			}
		}
		if t.lines == nil && len(t.sent) == 0 && over == nil {
			over = time.After(t.f.linger)
		}
	}
}

func (t *terminal) send(ctx context.Context, line string) {
	p, err := t.c.Send(ctx, t.f.to, map[string]string{"text": line})
	if err != nil {
		t.say("! not sent: %v", err)
		return
	}
	t.sent[p.ClientMsgID], t.here[p.ClientMsgID] = line, true
	t.say("> %s   (sending)", line)
}

// show prints an event and reports whether it is the one after which history is read.
func (t *terminal) show(ev client.Event) (ready bool) {
	switch ev := ev.(type) {
	case client.Connected:
		t.say("* connected to %s as %s (resumed: %v)", ev.Edge, ev.UserID, ev.Resumed)
	case client.Synced:
		return true
	case client.Disconnected:
		t.say("* disconnected: %v", ev.Err)
	case client.Notice:
		t.say("* notice %d: %s", ev.Code, ev.Reason)
	case client.Stored:
		t.say("> %s   (stored, seq %d)", t.sent[ev.ClientMsgID], ev.Seq)
		delete(t.sent, ev.ClientMsgID)
	case client.Refused:
		t.say("! %s   (%v)", t.sent[ev.ClientMsgID], ev.Err)
		delete(t.sent, ev.ClientMsgID)
	case client.Skipped:
		t.say("* history no longer holds %d to %d of %s", ev.From, ev.To, ev.ConvID)
	case client.Message:
		if !t.here[ev.ClientMsgID] && (ev.ConvID != t.conv || ev.Seq > t.shown) {
			t.say("%s: %s   (seq %d)", ev.From, text(ev.Body), ev.Seq)
		}
	}
	return false
}

func (t *terminal) history(ctx context.Context) {
	if t.f.history <= 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	page, err := t.c.History(ctx, t.f.to, protocol.HistoryRequest{Limit: t.f.history})
	if err != nil && !errors.Is(err, context.Canceled) {
		t.say("! no history: %v", err)
	}
	for _, m := range page.Messages {
		t.say("  %s: %s   (seq %d)", m.SendUserID, text(m.MsgBody), m.Seq)
		t.conv, t.shown = page.ConvID, m.Seq
	}
}

// say prints one line. Control characters of a message never reach the terminal.
func (t *terminal) say(format string, args ...any) {
	line := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '·'
		}
		return r
	}, fmt.Sprintf(format, args...))
	fmt.Fprintln(t.out, line)
}

// text is what a message says: the member text of a body as this program and the demo
// page send it, or a JSON string, or the JSON as it is.
func text(body json.RawMessage) string {
	var object struct {
		Text *string `json:"text"`
	}
	var s string
	switch {
	case json.Unmarshal(body, &object) == nil && object.Text != nil:
		return *object.Text
	case json.Unmarshal(body, &s) == nil:
		return s
	}
	return string(body)
}
