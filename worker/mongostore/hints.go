package mongostore

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

const (
	// hintEvery is how often hints are written: a conversation's once in that time.
	hintEvery = time.Second
	// hintBatch is the most hints written at a time, 30 ms of the server's CPU; the others
	// wait for their turn.
	hintBatch = 1000
	// maxHints is how many hints may wait. More are lost: a list is in an older order
	// then, until the next message.
	maxHints = 100_000
	// hintTimeout bounds one write of hints.
	hintTimeout = 5 * time.Second
)

// hints writes the time of each conversation's latest message to its document, off the
// way of the messages. Conversation lists are ordered by it; nothing else looks at it.
type hints struct {
	coll *mongo.Collection // nothing waits for it: w:1
	log  *slog.Logger
	m    *metrics

	stop chan struct{} // closed by close
	done chan struct{} // closed by run

	mu      sync.Mutex
	waiting map[string]int64 // conversation → Unix milliseconds
}

func newHints(coll *mongo.Collection, log *slog.Logger, m *metrics) *hints {
	h := &hints{coll: coll, log: log, m: m, stop: make(chan struct{}), done: make(chan struct{}), waiting: map[string]int64{}}
	go h.run()
	return h
}

// note keeps a hint for the next write. It may be called concurrently.
func (h *hints) note(conv string, ts int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	was, ok := h.waiting[conv]
	switch {
	case !ok && len(h.waiting) >= maxHints:
		h.m.hintsLost.Inc()
	case !ok || was < ts:
		h.waiting[conv] = ts
	}
}

// overlay raises times to what waits to be written.
func (h *hints) overlay(times map[string]int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for conv, ts := range times {
		times[conv] = max(ts, h.waiting[conv])
	}
}

// close writes what waits and ends run. It is called once.
func (h *hints) close() {
	close(h.stop)
	<-h.done
}

func (h *hints) run() {
	defer close(h.done)
	tick := time.NewTicker(hintEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			h.flush()
		case <-h.stop:
			for h.flush() == hintBatch {
			}
			return
		}
	}
}

// flush writes up to hintBatch hints and returns how many it wrote.
func (h *hints) flush() int {
	batch := h.take()
	if len(batch) == 0 {
		return 0
	}
	models := make([]mongo.WriteModel, 0, len(batch))
	for conv, ts := range batch {
		models = append(models, mongo.NewUpdateOneModel().SetFilter(bson.D{{Key: fieldID, Value: conv}}).
			SetUpdate(bson.D{{Key: "$max", Value: bson.D{{Key: fieldTS, Value: ts}}}}))
	}
	ctx, cancel := context.WithTimeout(context.Background(), hintTimeout)
	defer cancel()
	start := time.Now()
	_, err := h.coll.BulkWrite(ctx, models, options.BulkWrite().SetOrdered(false))
	h.m.done(opHints, start, err)
	if err != nil {
		h.m.hintsLost.Add(float64(len(batch)))
		h.log.Debug("hints for conversation lists were not written", "err", err)
		return 0
	}
	return len(batch)
}

func (h *hints) take() map[string]int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.waiting) <= hintBatch {
		batch := h.waiting
		h.waiting = map[string]int64{}
		return batch
	}
	batch := make(map[string]int64, hintBatch)
	for conv, ts := range h.waiting {
		if len(batch) == hintBatch {
			break
		}
		batch[conv] = ts
		delete(h.waiting, conv)
	}
	return batch
}
