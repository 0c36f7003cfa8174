package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/wirepost/wirepost/scripts/dev/page"
)

var update = flag.Bool("update", false, "write docs/demo.png anew")

// window is a tab of a headless Chromium.
type window struct {
	t   *testing.T
	ctx context.Context
}

// browser starts Chromium with a profile of its own. Without Chromium the test is
// skipped, and fails where CI=true.
func browser(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("the browser test needs chromium (apt-get install chromium), and may not be skipped where CI=true")
		}
		t.Skip("the browser test is skipped: there is no chromium on PATH (apt-get install chromium)")
	}
	actx, stop := chromedp.NewExecAllocator(context.Background(), chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		// A tab behind another one would be slowed down.
		chromedp.Flag("disable-background-timer-throttling", true), chromedp.Flag("disable-renderer-backgrounding", true),
		chromedp.Flag("disable-backgrounding-occluded-windows", true))
	ctx, cancel := chromedp.NewContext(actx)
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // waits for the browser's end
		cancel()
		stop()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start chromium: %v", err)
	}
	return ctx
}

// open opens a page in a tab of its own. An exception in it fails the test.
func open(t *testing.T, browser context.Context, url string, width, height int64) *window {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser)
	ctx, stop := context.WithTimeout(ctx, 3*patience)
	var watching sync.WaitGroup
	t.Cleanup(func() { stop(); cancel(); watching.Wait() })
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(width, height)); err != nil {
		t.Fatal(err)
	}
	messages := chromedp.Console(ctx)
	watching.Go(func() {
		for m, err := range messages {
			if err == nil && m.IsException() {
				t.Errorf("exception in the page: %s", m.Text)
			}
		}
	})
	w := &window{t, ctx}
	w.do(chromedp.Navigate(url))
	return w
}

func (w *window) do(steps ...chromedp.Action[chromedp.Void]) {
	w.t.Helper()
	if err := chromedp.Do(w.ctx, steps...); err != nil {
		w.t.Fatal(err)
	}
}

// until waits for a JavaScript condition.
func (w *window) until(what, condition string) {
	w.t.Helper()
	poll := chromedp.Poll[bool]("!!("+condition+")", chromedp.WithPollingTimeout(patience), chromedp.WithPollingInterval(20*time.Millisecond))
	if _, err := chromedp.Run(w.ctx, poll); err != nil {
		text, _ := chromedp.Run(w.ctx, chromedp.Evaluate[string](`document.body.innerText`))
		w.t.Fatalf("%s: %v\n%s", what, err, text)
	}
}

func (w *window) eval(js string) string {
	w.t.Helper()
	v, err := chromedp.Run(w.ctx, chromedp.Evaluate[string]("String("+js+")"))
	if err != nil {
		w.t.Fatalf("%s: %v", js, err)
	}
	return v
}

func (w *window) click(selector string) {
	w.t.Helper()
	w.do(chromedp.Click(chromedp.CSS(selector)))
}

// say types a message as a person does.
func (w *window) say(pane, text string) {
	w.t.Helper()
	w.do(chromedp.SendKeys(chromedp.CSS(pane+" textarea"), text))
	w.click(pane + " .send")
}

// shows waits until a pane has a stored message with this text, exactly once.
func (w *window) shows(pane, text string) {
	w.t.Helper()
	w.until(fmt.Sprintf("%s shows %q once", pane, text),
		fmt.Sprintf(`[...document.querySelectorAll('%s .stored > li .text')].filter((x) => x.textContent === %q).length === 1`, pane, text))
}

func (w *window) online(pane string) {
	w.t.Helper()
	w.until(pane+" is online", `document.querySelector('`+pane+`')?.dataset.state === 'online'`)
}

// proven waits until the strip has read the history after n sends were acknowledged, and
// finds nothing lost, nothing twice and no gap among last messages.
func (w *window) proven(n, last int) {
	w.t.Helper()
	w.until(fmt.Sprintf("the strip has read %d acknowledged among %d", n, last),
		fmt.Sprintf(`Number(document.querySelector('#strip').dataset.owed) === %d && document.querySelector('#n-gapless').textContent.replace(/,/g, '').endsWith('– %d')`, n, last))
	want := fmt.Sprintf("%d %d 0 0 gapless 1 – %d", n, n, last)
	got := w.eval(`['acked', 'found', 'lost', 'twice', 'gapless'].map((x) => document.getElementById('n-' + x).textContent).join(' ').replace(/,/g, '')`)
	if got != want {
		w.t.Errorf("strip says %q, want %q", got, want)
	}
}

const left, right = "#pane-left", "#pane-right"

// TestTwoPeople is what a visitor does: two people talk, one reloads, edges are crashed,
// a plug is pulled, the worker pauses, and nothing is lost, doubled or out of order.
func TestTwoPeople(t *testing.T) {
	chrome := browser(t)
	s := startSystem(t, options{})
	w := open(t, chrome, s.page.url(), 1280, 820)
	w.online(left)
	w.online(right)

	w.say(left, "Hello Bob")
	w.shows(right, "Hello Bob")
	w.say(right, "Hello Alice")
	w.shows(left, "Hello Alice")
	w.proven(2, 2)

	w.do(chromedp.Reload())
	w.online(left)
	w.shows(left, "Hello Bob")
	w.shows(left, "Hello Alice")
	w.shows(right, "Hello Alice")
	w.proven(2, 2) // what was acknowledged before the reload is still owed

	// The plug: what bob writes waits, what alice writes comes when he is back.
	w.click(right + " .plug")
	w.until("bob is offline", `document.querySelector('#pane-right').dataset.state === 'offline'`)
	w.say(right, "written in a tunnel")
	w.until("it waits", `document.querySelectorAll('#pane-right .pending li').length === 1`)
	w.say(left, "are you there?")
	w.shows(left, "are you there?")
	if got := w.eval(`document.querySelectorAll('#pane-right .stored > li').length`); got != "2" {
		t.Errorf("an unplugged pane shows %s messages, want 2", got)
	}
	w.click(right + " .plug")
	w.shows(right, "are you there?")
	w.shows(left, "written in a tunnel")
	w.until("nothing waits", `document.querySelectorAll('#pane-right .pending li').length === 0`)

	// A crash of one's own edge, and what is said meanwhile.
	conn := w.eval(`document.querySelector('#pane-left').dataset.conn`)
	w.click(left + " .crash")
	w.until("alice lost her edge", `document.querySelector('#pane-left').dataset.state !== 'online'`)
	w.say(left, "said to nobody")
	w.say(right, "said meanwhile")
	w.shows(right, "said to nobody")
	w.shows(left, "said meanwhile")
	w.online(left)
	if again := w.eval(`document.querySelector('#pane-left').dataset.conn`); again == conn || again == "" {
		t.Errorf("connection %q after the crash, %q before", again, conn)
	}
	w.proven(6, 6)

	// A thousand, with both edges crashed and the worker paused on the way.
	w.click(left + " .many")
	w.until("some are stored", `Number(document.querySelector('#pane-right .stored > li:last-child').dataset.seq) > 40`)
	w.click(right + " .crash")
	w.until("some more", `Number(document.querySelector('#pane-left .stored > li:last-child').dataset.seq) > 200`)
	w.click(left + " .crash")
	w.until("alice lost her edge again", `document.querySelector('#pane-left').dataset.state !== 'online'`)
	w.click("#worker-button")
	w.until("the worker is paused", `document.querySelector('#worker-state').textContent === 'worker paused'`)
	w.online(left)
	w.click("#worker-button")
	w.shows(right, "1,000 of 1,000")
	w.shows(left, "1,000 of 1,000")
	w.proven(1006, 1006)
}

// TestEverythingIsKilled: the process with all servers in it gets SIGKILL under an open
// page, and starts again.
func TestEverythingIsKilled(t *testing.T) {
	chrome := browser(t)
	dir, ports := t.TempDir(), freePorts(t, 6)
	cmd := startCommand(t, dir, ports)
	w := open(t, chrome, fmt.Sprintf("http://127.0.0.1:%d", ports[0]), 1280, 820)
	w.online(left)
	w.online(right)
	w.click(left + " .many")
	w.until("some are stored", `Number(document.querySelector('#pane-right .stored > li:last-child')?.dataset.seq) > 100`)
	cmd.stop(t, syscall.SIGKILL)
	w.until("both are cut off", `[...document.querySelectorAll('.pane')].every((p) => p.dataset.state !== 'online')`)
	w.say(right, "is anybody there?")
	cmd = startCommand(t, dir, ports)
	w.shows(left, "is anybody there?")
	w.shows(right, "1,000 of 1,000")
	w.shows(left, "1,000 of 1,000")
	w.proven(1001, 1001)
	cmd.stop(t, syscall.SIGINT)
}

// TestOlderMessagesByScrolling: a page of history is there at the start, the older ones
// come when somebody scrolls up.
func TestOlderMessagesByScrolling(t *testing.T) {
	chrome := browser(t)
	s := startSystem(t, options{})
	alice := talker(t, "alice", s.edges[0].url(), s.tokenOf("alice"))
	drain(alice)
	for i := 1; i <= 100; i++ {
		p := send(t, alice, "bob", fmt.Sprintf("line %d", i))
		if i == 100 {
			<-p.Done()
		}
	}
	w := open(t, chrome, s.page.url(), 420, 900)
	w.shows(left, "line 100")
	if got := w.eval(`document.querySelector('#pane-left .stored > li').dataset.seq`); got != "61" {
		t.Errorf("the first page begins at %s, want 61", got)
	}
	for _, first := range []string{"21", "1"} {
		w.do(chromedp.Query(chromedp.CSS(left + " .log")))
		w.eval(`document.querySelector('#pane-left .log').scrollTo(0, 0)`)
		w.until("older messages come: "+first, `document.querySelector('#pane-left .stored > li').dataset.seq === '`+first+`'`)
	}
	got := w.eval(`[...document.querySelectorAll('#pane-left .stored > li')].map((x) => x.dataset.seq).join() === [...Array(100).keys()].map((x) => x + 1).join()`)
	if got != "true" {
		t.Errorf("not 1 to 100 in order")
	}
}

// TestWayIsShown: a click on a message shows its stations, in order of time.
func TestWayIsShown(t *testing.T) {
	chrome := browser(t)
	s := startSystem(t, options{})
	w := open(t, chrome, s.page.url(), 1280, 820)
	w.online(left)
	w.online(right)
	w.say(left, "Which way did this go?")
	w.shows(right, "Which way did this go?")
	w.shows(left, "Which way did this go?")
	w.click(left + " .stored > li:last-child .meta")
	w.until("the way is there", `document.querySelectorAll('#pane-left .way li').length >= 8`)
	got := w.eval(`[...document.querySelectorAll('#pane-left .way li b')].map((x) => x.textContent).join()`)
	for _, station := range []string{"written to the socket", "edge-1", "JetStream", "worker", "store", "downlink", "alice’s socket", "bob’s socket"} {
		if !strings.Contains(got, station) {
			t.Errorf("no station %q in %q", station, got)
		}
	}
	order := []string{"edge-1", "worker", "store", "downlink", "bob’s socket"}
	for i := 1; i < len(order); i++ {
		if strings.Index(got, order[i-1]) > strings.Index(got, order[i]) {
			t.Errorf("%s comes before %s in %q", order[i], order[i-1], got)
		}
	}
	w.click(left + " .stored > li:last-child .meta")
	w.until("the way is gone", `!document.querySelector('#pane-left .way')`)
}

// TestSecondWindow: somebody else logs in beside the two, and each window has a device
// of its own.
func TestSecondWindow(t *testing.T) {
	chrome := browser(t)
	s := startSystem(t, options{})
	w := open(t, chrome, s.page.url(), 1280, 820)
	w.online(left)
	w.click(left + " .peer")
	w.eval(`(() => { const p = document.querySelector('#pane-left .peer'); p.value = 'carol'; p.dispatchEvent(new Event('change')); })()`)
	w.online(left)
	c := open(t, chrome, s.page.url()+"/?as=carol&to=alice&edge=2", 900, 700)
	c.online("#pane-single")
	c.say("#pane-single", "hi from a window of my own")
	w.shows(left, "hi from a window of my own")

	twin := open(t, chrome, s.page.url(), 1280, 820)
	twin.online(left)
	devices := `navigator.locks.query().then((q) => q.held.filter((l) => l.name.startsWith('wirepost/alice/')).map((l) => l.name).sort().join())`
	got, err := chromedp.Run(twin.ctx, chromedp.Evaluate[string](devices, chromedp.EvalAwaitPromise))
	if err != nil || got != "wirepost/alice/left,wirepost/alice/left-2" {
		t.Errorf("devices of alice: %q, %v", got, err)
	}
}

// TestClientInTheBrowser runs the tests of wirepost.js where it is at home.
func TestClientInTheBrowser(t *testing.T) {
	chrome := browser(t)
	mux := http.NewServeMux()
	mux.Handle("/test/", http.FileServer(http.Dir("page")))
	mux.Handle("/", http.FileServerFS(page.FS))
	mux.HandleFunc("/blank", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte("<!doctype html><title>tests</title>"))
	})
	srv := httptest.NewServer(mux)
	defer srv.Close()
	w := open(t, chrome, srv.URL+"/blank", 400, 300)
	type outcome struct{ Passed, Failed []string }
	got, err := chromedp.Run(w.ctx, chromedp.Evaluate[outcome](`import('/test/wirepost.test.js').then((m) => m.run())`, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range got.Failed {
		t.Error(f)
	}
	if len(got.Passed) < 25 {
		t.Errorf("only %d tests passed", len(got.Passed))
	}
}

// TestPicture writes the picture of README.md, when it is asked to.
func TestPicture(t *testing.T) {
	if !*update {
		t.Skip("docs/demo.png is written with -update only")
	}
	chrome := browser(t)
	s := startSystem(t, options{edges: [2]int{8081, 8082}})
	w := open(t, chrome, s.page.url(), 1280, 820)
	w.online(left)
	w.online(right)
	w.click(left + " .many")
	w.until("some are stored", `Number(document.querySelector('#pane-right .stored > li:last-child')?.dataset.seq) > 100`)
	w.click(left + " .crash")
	w.shows(right, "1,000 of 1,000")
	w.online(left)
	for _, m := range []struct{ pane, text string }{
		{left, "Did the parcel leave on time?"},
		{right, "It did, with the 17:40. It was past the second relay when I looked."},
		{left, "Then I will tell the others that it is on its way."},
		{right, "Tell them Thursday, not earlier :)"},
	} {
		w.say(m.pane, m.text)
		w.shows(left, m.text)
		w.shows(right, m.text)
	}
	w.click(right + " .plug")
	w.say(left, "Thursday it is. One moment, I am crashing your edge.")
	w.shows(left, "Thursday it is. One moment, I am crashing your edge.")
	w.click(right + " .crash")
	w.until("it is back", `document.querySelector('#pane-right .crash span').textContent.startsWith('Crash')`)
	w.click(right + " .plug")
	w.online(right)
	w.say(right, "And I am back, with everything there.")
	w.shows(left, "And I am back, with everything there.")
	w.click(right + " .plug")
	w.until("bob is offline", `document.querySelector('#pane-right').dataset.state === 'offline'`)
	w.say(right, "Now I write into the void, and it keeps.")
	w.proven(1006, 1006)
	w.click(left + " .stored > li:last-child .meta")
	w.until("the way is there", `document.querySelectorAll('#pane-left .way li').length >= 8`)
	w.eval(`document.activeElement.blur()`)
	png, err := chromedp.Run(w.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("..", "..", "docs", "demo.png"), png, 0o644); err != nil {
		t.Fatal(err)
	}
}
