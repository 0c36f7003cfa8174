// Command attacks shows what healthy users feel while an edge is attacked, and what memory
// the attack takes: one edge as a process, healthy users who send and wait until JetStream
// has it, and an attacker, who is a process of its own.
//
//	go run ./scripts/attacks -edge bin/edge [-only drip,pings] [-pairs 4] [-window 3s]   (make attacks)
//
// Each attack runs in windows, with windows of rest between. The machine has few cores, so
// an attacker takes from the users what the edge cannot give back: its own processor time.
// In a window of rest it therefore burns as much as it used in the window of attack before
// it, and holds no connection. What differs then is what the edge does about the attack. The
// figures are medians over the windows, p99 with its spread; the verdict is by the medians.
//
// The rooms: site (the edge and its NATS), army (the attackers), crowd (the users). The tests
// of this package hold each attack to its bound of memory and to what the edge must count.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/wirepost/wirepost/scripts/attacks/army"
	"github.com/wirepost/wirepost/scripts/attacks/site"
)

type options struct {
	edge   string
	only   string
	pairs  int
	window time.Duration
	users  int
	period time.Duration
	attack string // the attack that this process is the attacker of
	addr   string
}

func main() {
	var o options
	flag.StringVar(&o.edge, "edge", "bin/edge", "the edge's binary")
	flag.StringVar(&o.only, "only", "", "names of attacks, separated by commas; empty: all")
	flag.IntVar(&o.pairs, "pairs", 4, "windows of attack, and as many of rest")
	flag.DurationVar(&o.window, "window", 3*time.Second, "length of a window")
	flag.IntVar(&o.users, "users", 100, "healthy users")
	flag.DurationVar(&o.period, "period", 100*time.Millisecond, "from one message of a user to the next")
	flag.StringVar(&o.attack, "attacker", "", "internal: be the attacker")
	flag.StringVar(&o.addr, "addr", "", "internal: the edge's address")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, &o); err != nil {
		fmt.Fprintln(os.Stderr, "attacks:", err)
		os.Exit(1)
	}
}

// token is one that holds for longer than any run.
func token(user string) string { return site.Token(user, time.Hour) }

// choose returns the attacks that are named.
func choose(only string) ([]*army.Attack, error) {
	all := army.All(token)
	if only == "" {
		return all, nil
	}
	var some []*army.Attack
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(all, func(a *army.Attack) bool { return a.Name == strings.TrimSpace(name) })
		if i < 0 {
			return nil, fmt.Errorf("there is no attack %q", name)
		}
		some = append(some, all[i])
	}
	return some, nil
}

func run(ctx context.Context, o *options) error {
	if o.attack != "" {
		chosen, err := choose(o.attack)
		if err != nil {
			return err
		}
		to, err := netip.ParseAddrPort(o.addr)
		if err != nil {
			return err
		}
		return attacker(ctx, chosen[0], to)
	}
	chosen, err := choose(o.only)
	if err != nil {
		return err
	}
	fmt.Printf("%d users send every %v; %d windows of attack and as many of rest, %v each\n\n", o.users, o.period, o.pairs, o.window)
	fmt.Println(headline)
	felt := 0
	for _, a := range chosen {
		r, err := measure(ctx, o, a)
		if err != nil {
			return fmt.Errorf("%s: %w", a.Name, err)
		}
		fmt.Println(r)
		if !r.held() {
			felt++
		}
	}
	if felt > 0 {
		return fmt.Errorf("%d of %d attacks are felt: p99 beyond %.2f times that of rest", felt, len(chosen), worst)
	}
	return nil
}
