package mongostore

import "sync"

// cacheGeneration is how many conversations one of the cache's two generations holds:
// up to twice as many are remembered, in about 20 MB.
const cacheGeneration = 1 << 16

// cache remembers, of the conversations that were used of late, that their documents
// exist, and a number that their last message has at least reached. Numbers come only
// from what a majority has committed: a number that is too low costs one refused insert,
// one that is too high would leave a hole for ever.
//
// Its methods may be called concurrently.
type cache struct {
	limit int // conversations per generation

	mu       sync.Mutex
	cur, old map[string]int64 // conversation → last number, or unread
}

// unread stands for a conversation that exists and whose last number is not known.
const unread = -1

func newCache(limit int) *cache {
	return &cache{limit: limit, cur: map[string]int64{}, old: map[string]int64{}}
}

// known reports whether the conversation's documents are known to exist.
func (c *cache) known(conv string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.find(conv)
	return ok
}

// last returns a number that the conversation's last message has at least reached.
func (c *cache) last(conv string) (int64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	seq, ok := c.find(conv)
	return seq, ok && seq != unread
}

// setKnown notes that the conversation's documents are committed.
func (c *cache) setKnown(conv string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.find(conv); !ok {
		c.put(conv, unread)
	}
}

// raise notes that the message seq of a known conversation is committed. It never
// lowers a number, and does nothing for a conversation that was dropped meanwhile.
func (c *cache) raise(conv string, seq int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if was, ok := c.find(conv); ok && seq > was {
		c.cur[conv] = seq
	}
}

// drop forgets a conversation.
func (c *cache) drop(conv string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.cur, conv)
	delete(c.old, conv)
}

// find returns what is known and moves it to the current generation.
func (c *cache) find(conv string) (int64, bool) {
	if seq, ok := c.cur[conv]; ok {
		return seq, true
	}
	seq, ok := c.old[conv]
	if ok {
		delete(c.old, conv)
		c.put(conv, seq)
	}
	return seq, ok
}

func (c *cache) put(conv string, seq int64) {
	if len(c.cur) >= c.limit {
		c.cur, c.old = make(map[string]int64, c.limit), c.cur
	}
	c.cur[conv] = seq
}
