package agent

import (
	"container/heap"
	"time"
)

// later are devices that will connect again, or leave an edge that goes away, first the
// first. An entry whose device has another time by now counts no more.
type later []waiting

type waiting struct {
	at     time.Duration
	device uint32
}

func (l *later) add(at time.Duration, device uint32) { heap.Push(l, waiting{at, device}) }
func (l *later) take() waiting                       { return heap.Pop(l).(waiting) }
func (l later) first() time.Duration                 { return l[0].at }

func (l later) Len() int           { return len(l) }
func (l later) Less(i, j int) bool { return l[i].at < l[j].at }
func (l later) Swap(i, j int)      { l[i], l[j] = l[j], l[i] }
func (l *later) Push(x any)        { *l = append(*l, x.(waiting)) }
func (l *later) Pop() any {
	last := len(*l) - 1
	w := (*l)[last]
	*l = (*l)[:last]
	return w
}
