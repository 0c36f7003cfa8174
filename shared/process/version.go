package process

import (
	"runtime"
	"runtime/debug"
)

// version is set by the linker: -X github.com/wirepost/wirepost/shared/process.version=v1.2.3.
// commit likewise; without it the commit comes from what the go command recorded.
var version, commit string

// BuildInfo says what a binary was built from.
type BuildInfo struct {
	Version string `json:"version"` // "dev" when the linker was not told
	Commit  string `json:"commit"`  // "unknown" when it was not recorded; "+changes" when the tree was changed
	Go      string `json:"go"`
}

func (b BuildInfo) String() string { return b.Version + " (" + b.Commit + ", " + b.Go + ")" }

// Build returns what this binary was built from.
func Build() BuildInfo {
	b := BuildInfo{Version: version, Commit: commit, Go: runtime.Version()}
	if b.Version == "" {
		b.Version = "dev"
	}
	if b.Commit == "" {
		b.Commit = recordedCommit()
	}
	return b
}

func recordedCommit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	revision, changes := "unknown", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && len(s.Value) >= 12:
			revision = s.Value[:12]
		case s.Key == "vcs.modified" && s.Value == "true":
			changes = "+changes"
		}
	}
	return revision + changes
}
