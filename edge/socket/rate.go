package socket

import "time"

// Rates bound what one connection may send for ever. It may send what burst seconds allow
// at once. Zero: no bound.
//
// They are enforced by not reading: nothing is dropped or refused, and TCP tells the peer
// to wait. Everything counts alike, messages, heartbeats, pings, pongs and fragments as
// frames, and every byte behind the handshake.
type Rates struct {
	Frames int // WebSocket frames a second, at most MaxFrameRate
	Bytes  int // a second, at most MaxByteRate
}

// What fits into spent.
const (
	MaxFrameRate = 100_000
	MaxByteRate  = 64 << 20
)

// burst is how many seconds of its rates a connection may send at once: what a client has
// in its outbox after a reconnect, or a few large messages.
const burst = 10

// spent is what a connection has sent and time has not paid back yet: 8 bytes, and
// nothing has to be done for it while the connection is silent.
type spent struct {
	frames uint32 // in hundredths: a rate of 1 pays one back in each stamp (10 ms)
	bytes  uint32
}

const perFrame = uint32(time.Second / stampUnit)

// repay takes off what stamps of time have earned.
func (s *spent) repay(stamps uint32, r *Rates) {
	s.frames -= uint32(min(uint64(s.frames), uint64(stamps)*uint64(r.Frames)))
	s.bytes -= uint32(min(uint64(s.bytes), uint64(stamps)*uint64(r.Bytes)/uint64(perFrame)))
}

// wait returns how long it takes until no more than a burst is owed.
func (s *spent) wait(r *Rates) time.Duration {
	stamps := 0
	if over := int(s.frames) - burst*int(perFrame)*r.Frames; over > 0 && r.Frames > 0 {
		stamps = (over + r.Frames - 1) / r.Frames
	}
	if over := int(s.bytes) - burst*r.Bytes; over > 0 && r.Bytes > 0 {
		stamps = max(stamps, (over*int(perFrame)+r.Bytes-1)/r.Bytes)
	}
	return time.Duration(stamps) * stampUnit
}

// hear notes that the peer is there. What it owes is paid back as of the time before, so
// seen is set nowhere else.
func (c *Conn) hear(now stamp) {
	if c.spent != (spent{}) {
		c.spent.repay(uint32(now-c.seen), &c.k.srv.cfg.Rates)
	}
	c.seen, c.pings = now, 0
}

// spendFrame counts a whole frame.
func (c *Conn) spendFrame() {
	if r := &c.k.srv.cfg.Rates; r.Frames > 0 {
		if c.spent.frames += perFrame; int(c.spent.frames) > burst*int(perFrame)*r.Frames {
			c.limit(nLimitedFrames)
		}
	}
}

// spendBytes counts n bytes, at most one read.
func (c *Conn) spendBytes(n int) {
	if r := &c.k.srv.cfg.Rates; r.Bytes > 0 {
		if c.spent.bytes += uint32(n); int(c.spent.bytes) > burst*r.Bytes {
			c.limit(nLimitedBytes)
		}
	}
}

// limit pauses a connection that has sent too much. The timer ends it.
func (c *Conn) limit(why count) {
	if c.has(fLimited) || c.state >= stClosing {
		return
	}
	c.set(fLimited)
	c.k.limited.Add(1)
	c.k.add(why, 1)
	c.rearm()
}

// unlimit ends the pause.
func (c *Conn) unlimit() {
	if c.has(fLimited) {
		c.drop(fLimited)
		c.k.limited.Add(-1)
	}
}

// relieve ends the pause if time has paid for it.
func (c *Conn) relieve(now stamp) {
	if !c.has(fLimited) || c.has(fPaid) {
		return
	}
	if c.hear(now); c.spent.wait(&c.k.srv.cfg.Rates) > 0 {
		return
	}
	c.set(fPaid)
	if c.k.paid = append(c.k.paid, c); len(c.k.paid) == 1 {
		c.k.loop.Post(message{kind: mPaid})
	}
}

// paidStep is how many pauses end in one turn of the loop. The timers of one grain are due
// together; all at once, those who send too much would hold up everybody else.
const paidStep = 8

// goOn goes on with some of those who have paid, and posts itself for the rest: between
// two steps the loop serves whoever is ready.
func (k *keeper) goOn() {
	upTo := min(k.paidAt+paidStep, len(k.paid))
	for _, c := range k.paid[k.paidAt:upTo] {
		c.drop(fPaid)
		if c.has(fLimited) { // not closed meanwhile
			c.unlimit()
			c.resume()
			c.rearm()
		}
		c.settle()
	}
	if k.paidAt = upTo; upTo < len(k.paid) {
		k.loop.Post(message{kind: mPaid})
		return
	}
	clear(k.paid)
	k.paid, k.paidAt = k.paid[:0], 0
}
