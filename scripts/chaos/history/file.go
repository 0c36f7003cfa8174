package history

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"
)

// Writer writes a history. Its methods may be called concurrently: records stand in the
// file in the order of their times.
type Writer struct {
	start time.Time

	mu  sync.Mutex
	buf *bufio.Writer
	enc *json.Encoder
	err error // the first one; nothing is written after it
}

// NewWriter begins a history now. The caller closes w after Flush.
func NewWriter(w io.Writer) *Writer {
	buf := bufio.NewWriterSize(w, 1<<20)
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	return &Writer{start: time.Now(), buf: buf, enc: enc}
}

// Add writes a record at the present time. An error is kept for Flush.
func (w *Writer) Add(r Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r.T = int64(time.Since(w.start))
	if w.err == nil {
		w.err = w.enc.Encode(r)
	}
}

// Flush hands everything to the underlying writer and returns the first error since the
// beginning.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = w.buf.Flush()
	}
	if w.err != nil {
		return fmt.Errorf("write history: %w", w.err)
	}
	return nil
}

// Scan calls each for every record of a history, in order, until one is no record or
// each returns an error.
func Scan(r io.Reader, each func(Record) error) error {
	dec := json.NewDecoder(bufio.NewReaderSize(r, 1<<20))
	for n := 1; ; n++ {
		var rec Record
		switch err := dec.Decode(&rec); {
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("read history: record %d: %w", n, err)
		}
		if err := each(rec); err != nil {
			return err
		}
	}
}
