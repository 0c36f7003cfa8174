// Package nginx makes the shipped configuration (k8s/nginx) ready to run on loopback: it
// copies the folder and changes what is an operator's to change, the addresses and the
// place of the logs. Everything else is what users run.
package nginx

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// The layers, by the names of their files.
const (
	Single = "single.conf"
	Outer  = "outer.conf"
	Inner  = "inner.conf"
)

// ErrMissing is returned by Find when there is no nginx on this machine.
var ErrMissing = errors.New("no nginx on this machine (Debian, Ubuntu: apt-get install nginx)")

// Find returns the path of nginx, which is seldom in the PATH of a user who is not root.
func Find() (string, error) {
	for _, name := range []string{"nginx", "/usr/sbin/nginx", "/usr/local/sbin/nginx"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", ErrMissing
}

// Addresses are what an operator changes, each as host:port.
type Addresses struct {
	Listen string
	Edges  []string
	Inners []string // of an outer layer
	Outers []string // of an inner layer, without ports; nil: as shipped
	TLS    string   // folder of tls.crt and tls.key, which Listen then speaks; "": it does not
}

// Render copies the folder shipped into dir, which is made, and writes addresses and the
// place of the logs into the copy of its folder local.
func Render(shipped, dir string, a Addresses) error {
	if err := os.CopyFS(dir, os.DirFS(shipped)); err != nil {
		return fmt.Errorf("copy the configuration of nginx: %w", err)
	}
	local := func(name string, change func(line string) []string) error {
		return edit(filepath.Join(dir, "local", name), change)
	}
	return errors.Join(
		local("listen.conf", a.listen),
		local("log.conf", func(line string) []string { return []string{strings.Replace(line, "/var/log/nginx", dir, 1)} }),
		local("edges.conf", each("server", a.Edges)),
		local("inners.conf", each("server", a.Inners)),
		local("outers.conf", each("set_real_ip_from", a.Outers)),
	)
}

// listen changes a line of listen.conf: the address, or for TLS the lines that are shipped
// as a comment.
func (a Addresses) listen(line string) []string {
	secure, comment := strings.CutPrefix(line, "#     ")
	switch plain := strings.HasPrefix(line, "listen 8080 "); {
	case a.TLS == "" || !plain && !comment:
		return []string{strings.Replace(line, "listen 8080 ", "listen "+a.Listen+" ", 1)}
	case plain:
		return nil
	}
	secure = strings.Replace(secure, "listen 443 ", "listen "+a.Listen+" ", 1)
	return []string{strings.Replace(secure, "/etc/nginx/tls/", a.TLS+"/", 1)}
}

// each replaces the first line of a directive by one for each address, with the same
// parameters, and takes the others away. Without addresses all stay.
func each(directive string, addrs []string) func(string) []string {
	first := true
	return func(line string) []string {
		rest, ok := strings.CutPrefix(line, directive+" ")
		if !ok || len(addrs) == 0 {
			return []string{line}
		}
		if !first {
			return nil
		}
		first = false
		end := strings.IndexAny(rest, " ;")
		var all []string
		for _, addr := range addrs {
			all = append(all, directive+" "+addr+rest[end:])
		}
		return all
	}
}

func edit(file string, change func(line string) []string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var lines []string
	for line := range strings.Lines(string(b)) {
		lines = append(lines, change(strings.TrimSuffix(line, "\n"))...)
	}
	return os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o644)
}

// Args are the arguments with which nginx runs a layer of the folder dir, in the
// foreground.
func Args(dir, layer string) []string {
	return []string{"-p", dir, "-c", filepath.Join(dir, layer), "-e", "stderr",
		"-g", "daemon off; pid " + filepath.Join(dir, layer+".pid") + ";"}
}

// Check lets nginx read a layer of the folder dir, and returns what it says against it.
func Check(program, dir, layer string) error {
	out, err := exec.Command(program, append(Args(dir, layer), "-t")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("nginx -t: %w: %s", err, out)
	}
	return nil
}
