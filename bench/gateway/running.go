package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-net/fairlead/bench/apiserver"
)

// running is fairlead gateway, as a process.
type running struct {
	*process
	plain, secure, health string // where it listens
}

const kubeconfig = `apiVersion: v1
kind: Config
current-context: bench
contexts: [{name: bench, context: {cluster: bench, user: bench}}]
clusters: [{name: bench, cluster: {server: "https://%s", tls-server-name: %s, certificate-authority-data: %s}}]
users: [{name: bench, user: {token: bench}}]
`

// startGateway starts one, and waits until it is ready.
func startGateway(ctx context.Context, w *world) (*running, error) {
	file := filepath.Join(w.dir, "kubeconfig")
	content := fmt.Sprintf(kubeconfig, w.api.Address, apiserver.Name, base64.StdEncoding.EncodeToString(w.api.Authority))
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		return nil, err
	}
	g := &running{}
	var err error
	if g.plain, g.secure, err = freeAddresses(); err != nil {
		return nil, err
	}
	if g.health, err = freeAddress(); err != nil {
		return nil, err
	}
	g.process, err = launch(w.dir, w.program, "gateway", "--kubeconfig", file, "--http", g.plain, "--https", g.secure, "--health-address", g.health)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		if response, err := http.Get("http://" + g.health + "/readyz"); err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return g, nil
			}
		}
		select {
		case <-ctx.Done():
			g.stop()
			log, _ := os.ReadFile(filepath.Join(w.dir, "fairlead.log"))
			return nil, fmt.Errorf("the gateway is not ready:\n%s", log)
		case <-time.After(2 * time.Millisecond): // it tells nobody
		}
	}
}

// memory is what it has now, and has had at most, in bytes.
func (p *process) memory() (resident, peak int64) {
	content, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.command.Process.Pid))
	for line := range strings.Lines(string(content)) {
		name, rest, _ := strings.Cut(line, ":")
		if fields := strings.Fields(rest); len(fields) > 0 {
			kilobytes, _ := strconv.ParseInt(fields[0], 10, 64)
			switch name {
			case "VmRSS":
				resident = kilobytes << 10
			case "VmHWM":
				peak = kilobytes << 10
			}
		}
	}
	return resident, peak
}

// save keeps a page.
func (g *running) save(page, path string) error {
	response, err := http.Get("http://" + g.health + "/" + page)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o600)
}
