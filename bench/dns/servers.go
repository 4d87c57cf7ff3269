package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/servers/dns/feed"
)

// server is one that is measured.
type server interface {
	name() string
	// start starts it anew, to answer at an address.
	start(at netip.AddrPort) (*process, error)
}

// process is a server that runs.
type process struct {
	command *exec.Cmd
	began   time.Time
	end     func()
	log     string
}

func launch(logFile string, end func(), program string, args ...string) (*process, error) {
	log, err := os.Create(logFile)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p := &process{began: time.Now(), end: end, command: exec.Command(program, args...)}
	p.command.Stdout, p.command.Stderr = log, log
	p.log = logFile
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	return p, nil
}

func (p *process) stop() {
	_ = p.command.Process.Signal(syscall.SIGTERM)
	_ = p.command.Wait()
	p.end()
}

// cpu is the time that it has used of any core.
func (p *process) cpu() (time.Duration, error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.command.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(content), ") ")
	var ticks int64
	for _, field := range strings.Fields(rest)[11:13] { // utime and stime, in ticks of 10 ms: proc(5)
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read the time of the server: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// memory is what it has and had at most, in bytes.
func (p *process) memory() (resident, peak float64, err error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.command.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(content)) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			continue
		}
		n, _ := strconv.ParseFloat(fields[1], 64)
		switch fields[0] {
		case "VmRSS:":
			resident = n * 1024
		case "VmHWM:":
			peak = n * 1024
		}
	}
	return resident, peak, nil
}

// fairleadServer is fed as by an agent.
type fairleadServer struct {
	program, dir string
	objects      *cluster
	feed         *model.Feed // of the last start
}

// healthAddress is where it serves metrics.
const healthAddress = "127.0.0.1:19814"

func (*fairleadServer) name() string { return "fairlead" }

func (f *fairleadServer) start(at netip.AddrPort) (*process, error) {
	ctx, cancel := context.WithCancel(context.Background())
	f.feed = &model.Feed{}
	f.feed.Edit(func(s *model.Snapshot) { *s = *f.objects.snapshot })
	sender := &feed.Sender{Feed: f.feed, Dir: filepath.Join(f.dir, "socket"), User: 65532, Log: slog.New(slog.DiscardHandler)}
	sender.Serve(feed.Serving{Listen: []netip.AddrPort{at}, Clients: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = sender.Run(ctx)
	}()
	return launch(filepath.Join(f.dir, "fairlead.log"), func() { cancel(); <-ended }, f.program, "dns",
		"--socket", filepath.Join(f.dir, "socket", feed.Socket), "--state-dir", "", "--health-address", healthAddress)
}

// corednsServer watches an API server.
type corednsServer struct {
	program, dir string
	objects      *cluster
}

func (*corednsServer) name() string { return "coredns" }

// corefile is that of kubeadm, without what the load does not ask for. It listens
// at all addresses: the plugin bind is not in the lab's build.
const corefile = `.:%d {
    errors
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        endpoint http://%s
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }
    prometheus 127.0.0.1:19153
    cache 30 {
        disable success cluster.local
        disable denial cluster.local
    }
    loadbalance
    forward . %s
}
`

func (c *corednsServer) start(at netip.AddrPort) (*process, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	api := &http.Server{Handler: http.HandlerFunc(c.serve), ReadHeaderTimeout: time.Minute}
	go func() { _ = api.Serve(listener) }()
	file := filepath.Join(c.dir, "Corefile")
	if err := os.WriteFile(file, fmt.Appendf(nil, corefile, at.Port(), listener.Addr(), c.objects.upstream), 0o600); err != nil {
		return nil, err
	}
	return launch(filepath.Join(c.dir, "coredns.log"), func() { _ = api.Close() }, c.program, "-conf", file)
}

// serve answers lists at once, and watches with nothing.
func (c *corednsServer) serve(w http.ResponseWriter, r *http.Request) {
	list := c.objects.lists[r.URL.Path]
	query := r.URL.Query()
	w.Header().Set("Content-Type", "application/json")
	switch {
	case list == nil:
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`)
	case query.Get("sendInitialEvents") == "true": // so that it is listed
		w.WriteHeader(http.StatusUnprocessableEntity)
		_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Invalid","code":422}`)
	case query.Get("watch") != "":
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	default:
		_, _ = w.Write(list)
	}
}
