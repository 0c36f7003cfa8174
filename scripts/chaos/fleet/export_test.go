package fleet

import "context"

// Writable reports whether a member of the store believes that it takes writes.
func (f *Fleet) Writable(ctx context.Context, p *Process) bool {
	h, err := ask(ctx, f.members[p.Index])
	return err == nil && h.Writable
}
