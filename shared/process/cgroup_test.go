package process

import (
	"math"
	"runtime/debug"
	"testing"
	"testing/fstest"
)

func TestCgroupLimit(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		want  int64
	}{
		{"no cgroups", nil, 0},
		{"version 2, in a container", map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "536870912\n"}, 512 << 20},
		{"version 2, no limit", map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, 0},
		{"version 2, on a host: the parent's is lower", map[string]string{
			"proc/self/cgroup": "0::/system.slice/edge.service\n",
			"sys/fs/cgroup/system.slice/edge.service/memory.max": "2000\n",
			"sys/fs/cgroup/system.slice/memory.max":              "1000\n",
		}, 1000},
		{"version 1, the host's path", map[string]string{
			"proc/self/cgroup":                           "5:cpu,cpuacct:/kubepods/pod1\n4:memory:/kubepods/pod1\n0::/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "268435456\n",
		}, 256 << 20},
		{"version 1, no limit", map[string]string{
			"proc/self/cgroup":                           "4:memory:/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, 0},
		{"another controller's", map[string]string{
			"proc/self/cgroup":                           "4:cpu:/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "1000\n",
		}, 0},
		{"nonsense", map[string]string{"proc/self/cgroup": "0::/\nx\n", "sys/fs/cgroup/memory.max": "much"}, 0},
	} {
		root := fstest.MapFS{}
		for name, text := range c.files {
			root[name] = &fstest.MapFile{Data: []byte(text)}
		}
		if n := cgroupLimit(root); n != c.want {
			t.Errorf("%s: %d, want %d", c.name, n, c.want)
		}
	}
}

// What the operator said holds.
func TestFollowCgroupKeepsGOMEMLIMIT(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(123 << 20))
	if FollowCgroup(); debug.SetMemoryLimit(-1) != 123<<20 {
		t.Errorf("the limit is %d", debug.SetMemoryLimit(-1))
	}
	debug.SetMemoryLimit(math.MaxInt64)
	if FollowCgroup(); debug.SetMemoryLimit(-1) < 1<<20 {
		t.Errorf("the limit is %d", debug.SetMemoryLimit(-1))
	}
}
