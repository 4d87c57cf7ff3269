package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// secrets is where Kubernetes mounts the credentials of a pod. A tmpfs lies over
// the /run of this process, which has a mount namespace of its own.
const secrets = "/run/secrets/kubernetes.io/serviceaccount"

func writeCredentials(authority []byte) error {
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount a tmpfs: %w", err)
	}
	if err := os.MkdirAll(secrets, 0o755); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(secrets, "token"), []byte("token"), 0o600),
		os.WriteFile(filepath.Join(secrets, "ca.crt"), authority, 0o600))
}

// process is an agent that runs as a pod of its DaemonSet does.
type process struct {
	command *exec.Cmd
	began   time.Time
	log     *os.File
}

const healthAddress = "127.0.0.1:9811"

func startAgent(programs, dir string, server netip.AddrPort) (*process, error) {
	log, err := os.OpenFile(filepath.Join(dir, "agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	p := &process{log: log, began: time.Now(), command: exec.Command(filepath.Join(programs, "fairlead"), "agent",
		"--node-name", nodeName(0), "--health-address", healthAddress, "--apiserver", server.String(),
		"--run-dir", filepath.Join(dir, "run"), "--state-dir", filepath.Join(dir, "state"),
		"--cni-bin-dir", filepath.Join(dir, "bin"), "--cni-conf-dir", filepath.Join(dir, "conf"))}
	p.command.Stdout, p.command.Stderr = log, log
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.command.Start(); err != nil {
		return nil, fmt.Errorf("start the agent: %w", err)
	}
	return p, nil
}

func (p *process) stop() {
	_ = p.command.Process.Signal(syscall.SIGTERM)
	_ = p.command.Wait()
	_ = p.log.Close()
}

// ready waits for /readyz.
func (p *process) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		text, ok := get("readyz")
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			log, _ := os.ReadFile(p.log.Name())
			return fmt.Errorf("the agent is not ready: %s\n%s", text, log)
		case <-time.After(5 * time.Millisecond): // it tells nobody
		}
	}
}

// get reads a page of the agent.
func get(page string) (text string, ok bool) {
	response, err := http.Get("http://" + healthAddress + "/" + page)
	if err != nil {
		return err.Error(), false
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), err == nil && response.StatusCode == http.StatusOK
}

// saveHeap keeps a profile of the agent's heap for go tool pprof.
func saveHeap(path string) error {
	profile, ok := get("debug/pprof/heap")
	if !ok {
		return errors.New("the agent gives no profile: " + profile)
	}
	return os.WriteFile(path, []byte(profile), 0o600)
}

// saveProfile keeps what the processors do for the agent from its first seconds
// on, for go tool pprof.
func saveProfile(ctx context.Context, path string) error {
	for {
		profile, ok := get("debug/pprof/profile?seconds=5")
		if ok {
			return os.WriteFile(path, []byte(profile), 0o600)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond): // until it listens
		}
	}
}

// memory is of a process, in bytes.
type memory struct{ Resident, Peak, Anonymous int64 }

func (p *process) memory() (m memory, err error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.command.Process.Pid))
	if err != nil {
		return m, err
	}
	for _, line := range strings.Split(string(content), "\n") {
		name, rest, _ := strings.Cut(line, ":")
		to := map[string]*int64{"VmRSS": &m.Resident, "VmHWM": &m.Peak, "RssAnon": &m.Anonymous}[name]
		if to == nil {
			continue
		}
		kilobytes, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
		if err != nil {
			return m, fmt.Errorf("read %s: %w", line, err)
		}
		*to = kilobytes << 10
	}
	return m, nil
}

// cpu is the time that a process has used of any core.
func (p *process) cpu() (time.Duration, error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.command.Process.Pid))
	if err != nil {
		return 0, err
	}
	// proc(5): the name, in parentheses, is the second field; utime and stime are
	// the 14th and 15th, in ticks of 10 ms.
	_, rest, _ := strings.Cut(string(content), ") ")
	fields := strings.Fields(rest)
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read the time of the agent: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}
