// Package box puts the rehearsal into namespaces of its own: a network that has nothing but
// "lo", processes that end with it, and files of /etc that only it sees. Root may make
// them; others make a user namespace around them. Nothing gets out, and nothing is left.
package box

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// mark is in the environment of the program inside.
const mark = "WIREPOST_K8S_LAB_INSIDE"

// ErrFailed is returned when the program inside ended with an error, of which it has told.
var ErrFailed = errors.New("the program inside failed")

// Inside returns what Run was given, if this process is in the box.
func Inside() (given string, inside bool) { return os.LookupEnv(mark) }

// Run starts this program again, inside, with the same arguments, and returns when it has
// ended. When this process dies, so does the box.
func Run(given string) error {
	runtime.LockOSThread() // Pdeathsig is about the thread that starts the child
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), mark+"="+given)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	if uid := os.Getuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) {
			return fmt.Errorf("this machine allows no namespaces to this user: run it as root (%w)", err)
		}
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			_ = cmd.Process.Signal(s)
		case err := <-ended:
			if err != nil {
				return fmt.Errorf("%w: %w", ErrFailed, err)
			}
			return nil
		}
	}
}

// Prepare makes the box's inside: /proc, the network, and files in place of those of /etc
// (path by name: "hosts", "resolv.conf").
func Prepare(etc map[string]string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("own mounts: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("own /proc: %w", err)
	}
	for name, path := range etc {
		if err := unix.Mount(path, filepath.Join("/etc", name), "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("own /etc/%s: %w", name, err)
		}
	}
	return loopback()
}

// Addresses of the box. All of 10.244.0.0/16 is the machine itself: each pod has an address,
// and programs outside of the cluster have some at the end of the range. (Kubernetes
// refuses endpoints in 127.0.0.0/8.)
const (
	PodRange   = "10.244.0.1/24" // what fake nodes give their pods
	Prometheus = "10.244.255.1"
	Mongo      = "10.244.255.2"
)

// loopback brings "lo" up and gives it the addresses.
func loopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING | unix.IFF_LOOPBACK)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("lo up: %w", err)
	}
	pods, err := unix.NewIfreq("lo:pods")
	if err != nil {
		return err
	}
	for _, set := range []struct {
		request uint
		value   [4]byte
	}{{unix.SIOCSIFADDR, [4]byte{10, 244, 0, 1}}, {unix.SIOCSIFNETMASK, [4]byte{255, 255, 0, 0}}} {
		if err := pods.SetInet4Addr(set.value[:]); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, set.request, pods); err != nil {
			return fmt.Errorf("addresses of lo: %w", err)
		}
	}
	return nil
}
