package fleet

import "os"

// RemoveData deletes what the nats-servers and the store have written, after Close. Logs
// and configurations stay.
func (f *Fleet) RemoveData() {
	for _, p := range f.everybody() {
		_ = os.RemoveAll(f.folder(p)) // a rest of it harms nobody
	}
}
