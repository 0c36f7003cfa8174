package fleet

import "slices"

// Edges returns the edges, running or not.
func (f *Fleet) Edges() []*Process {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.edges)
}

// Workers returns the workers, running or not, but not those that were retired.
func (f *Fleet) Workers() []*Process {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.workers)
}

// Nodes returns the nats-servers.
func (f *Fleet) Nodes() []*Process { return slices.Clone(f.nodes) }

// Store returns the processes of the store: mongods, or FerretDB alone.
func (f *Fleet) Store() []*Process { return slices.Clone(f.store) }

// Processes returns all of them: edges, workers, nats-servers, the store, nginx.
func (f *Fleet) Processes() []*Process {
	return slices.Concat(f.Edges(), f.Workers(), f.nodes, f.store, f.before())
}

func (f *Fleet) before() []*Process {
	if f.nginx == nil {
		return nil
	}
	return []*Process{f.nginx}
}

// everybody is Processes and the retired workers.
func (f *Fleet) everybody() []*Process {
	return slices.Concat(f.Edges(), f.everyWorker(), f.nodes, f.store, f.before())
}

func (f *Fleet) everyWorker() []*Process {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Concat(f.workers, f.retired)
}
