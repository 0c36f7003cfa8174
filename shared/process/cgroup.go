package process

import (
	"io/fs"
	"math"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

// cgroupShare is the part of the cgroup's limit, in percent, that Go may use. The rest is
// for what its runtime does not count: the binary, and the kernel's buffers of sockets.
const cgroupShare = 90

// FollowCgroup lowers the runtime's limit to nine tenths of the cgroup's, if there is one
// and GOMEMLIMIT is not set. Without it the collector does not know that it has to hurry,
// and the kernel ends the process. It is for a process as a whole: main calls it.
func FollowCgroup() {
	if debug.SetMemoryLimit(-1) != math.MaxInt64 {
		return
	}
	if n := cgroupLimit(os.DirFS("/")); n > 0 {
		debug.SetMemoryLimit(n / 100 * cgroupShare)
	}
}

// cgroupLimit returns the lowest memory limit of the cgroups around this process, in
// bytes, 0 for none. root is the root of the file system.
//
// The path in /proc may be the host's, of which a container sees nothing: then what is
// mounted is the container's own cgroup, so all folders from the path up are looked at.
func cgroupLimit(root fs.FS) int64 {
	text, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0
	}
	limit := int64(0)
	for line := range strings.Lines(string(text)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3) // id, controllers, path: cgroups(7)
		if len(part) < 3 {
			continue
		}
		dir, file := "sys/fs/cgroup", "memory.max" // version 2
		if part[0] != "0" || part[1] != "" {
			if part[1] != "memory" {
				continue
			}
			dir, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		}
		for p := path.Clean("/" + part[2]); ; p = path.Dir(p) {
			if n := limitIn(root, path.Join(dir, p, file)); n > 0 && (limit == 0 || n < limit) {
				limit = n
			}
			if p == "/" {
				break
			}
		}
	}
	return limit
}

// limitIn reads one limit; 0 when there is none.
func limitIn(root fs.FS, file string) int64 {
	const none = 1 << 60 // version 1 says nearly 2⁶³ for no limit, version 2 says "max"
	b, err := fs.ReadFile(root, file)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil || n >= none {
		return 0
	}
	return n
}
