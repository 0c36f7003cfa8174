package lane

import (
	"hash/fnv"
	"slices"
	"strconv"
)

// share returns the lanes of worker among the live workers: rendezvous hashing, with at
// most ⌈lanes/workers⌉ lanes each, so that no worker is idle while another has two more.
// All workers that see the same leases come to the same shares. A live list without
// worker gives it nothing.
func share(worker string, live []string, lanes int) []int {
	if !slices.Contains(live, worker) {
		return nil
	}
	most := (lanes + len(live) - 1) / len(live)
	load := make(map[string]int, len(live))
	var mine []int
	for lane := range lanes {
		owner, best := "", uint64(0)
		for _, w := range live {
			if load[w] >= most {
				continue
			}
			if s := score(w, lane); owner == "" || s > best || s == best && w > owner {
				owner, best = w, s
			}
		}
		load[owner]++
		if owner == worker {
			mine = append(mine, lane)
		}
	}
	return mine
}

// score is FNV-1a (64 bit), mixed: FNV alone hardly changes its high bits with the last byte.
func score(worker string, lane int) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(worker + "/" + strconv.Itoa(lane)))
	x := h.Sum64()
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
