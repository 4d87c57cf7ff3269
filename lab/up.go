package lab

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fairlead-net/fairlead/lab/build"
	"github.com/fairlead-net/fairlead/lab/world"
)

// steps tells what was done and how long it took.
type steps struct {
	mu    sync.Mutex
	out   io.Writer
	start time.Time
}

// do runs one step. Steps may run side by side; each is told when it is done.
func (s *steps) do(what string, f func() error) error {
	start := time.Now()
	if err := f(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	s.say("%s (%.1fs)", what, time.Since(start).Seconds())
	return nil
}

func (s *steps) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, "%6.1fs  %s\n", time.Since(s.start).Seconds(), fmt.Sprintf(format, args...))
}

// Up makes a lab and returns when all its nodes are ready, or registered if it
// has no network. It tells out what it does. When it fails, or ctx ends, what
// is there stays to be looked at; the next Up or Down of the name clears it.
func Up(ctx context.Context, config Config, out io.Writer) (*Lab, error) {
	config, err := config.Complete()
	if err != nil {
		return nil, err
	}
	unlock, err := lock(ctx, config.Name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if old, err := Open(config.Name); err == nil && old.state.Ready != 0 {
		return nil, fmt.Errorf("lab %s is up already; use it, or remove it first: fairlead lab down --name %s", config.Name, config.Name)
	}
	if err := Preflight(config); err != nil {
		return nil, err
	}
	s := &steps{out: out, start: time.Now()}
	l, err := named(config.Name)
	if err != nil {
		return nil, err
	}
	if err := l.clear(ctx); err != nil {
		return nil, fmt.Errorf("clearing what an earlier lab %s left: %w", config.Name, err)
	}
	if err := l.up(ctx, config, s); err != nil {
		if ctx.Err() != nil { // whatever failed, it failed for that reason
			err = fmt.Errorf("making lab %s was interrupted: %w", config.Name, context.Cause(ctx))
		}
		return nil, fmt.Errorf("%w\nWhat is there was left as it is. Look at it: fairlead lab logs --name %s control kube-apiserver\nRemove it: fairlead lab down --name %s",
			err, config.Name, config.Name)
	}
	return l, nil
}

func (l *Lab) up(ctx context.Context, config Config, s *steps) error {
	l.state = state{Config: config, Nodes: config.plan(), Started: s.start}
	var programs build.Programs
	err := s.do("programs are built", func() (err error) {
		programs, err = build.Request{Source: config.Source, Out: s.out}.Run(ctx)
		return err
	})
	if err != nil {
		return err
	}
	l.state.Binaries, l.state.Fairlead = programs.Kube, programs.Fairlead
	l.world.Executable = programs.Fairlead
	ca, err := newAuthority(config.Name)
	if err != nil {
		return err
	}
	if err := l.writeFiles(ca); err != nil {
		return err
	}
	// Whatever takes time starts as early as it can: images go into a node
	// while the API server starts.
	group, groupCtx := errgroup.WithContext(ctx)
	written := make(chan struct{})
	group.Go(func() error {
		defer close(written)
		return s.do("images are written", func() error { return l.writeImages(groupCtx, programs) })
	})
	if err := s.do(fmt.Sprintf("%d machines have booted", len(l.machines())), func() error {
		return l.world.Boot(groupCtx, l.segments(), l.machines())
	}); err != nil {
		return errors.Join(err, group.Wait())
	}
	if err := l.openPortal(ctx); err != nil {
		return errors.Join(err, group.Wait())
	}
	if err := errors.Join(l.writeKubeconfig(ca), l.save()); err != nil {
		return errors.Join(err, group.Wait())
	}
	group.Go(func() error {
		<-written
		return s.do("images are loaded", func() error { return l.LoadImages(groupCtx, l.imagesPath()) })
	})
	group.Go(func() error {
		return s.do("API server is ready", func() error { return l.waitAPI(groupCtx, ca) })
	})
	if err := group.Wait(); err != nil {
		return err
	}
	if err := l.install(ctx, s); err != nil {
		return err
	}
	l.state.Ready = time.Since(s.start)
	return l.save()
}

func (l *Lab) machines() []world.Machine {
	machines := []world.Machine{l.router(), l.control(), l.internet()}
	for _, node := range l.state.Nodes {
		machines = append(machines, l.node(node))
	}
	return machines
}

func (l *Lab) writeFiles(ca *authority) error {
	if err := l.save(); err != nil {
		return err
	}
	if err := l.writeControlFiles(ca); err != nil {
		return err
	}
	if err := l.writeEtc(Internet, map[string][]byte{}); err != nil {
		return err
	}
	for _, node := range l.state.Nodes {
		if err := l.writeNodeFiles(ca, node); err != nil {
			return err
		}
	}
	return nil
}

// waitAPI waits until the API server answers through the portal that it is
// ready. There is no event to wait for.
func (l *Lab) waitAPI(ctx context.Context, ca *authority) error {
	roots := x509.NewCertPool()
	roots.AddCert(ca.certificate)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("https://127.0.0.1:%d/readyz", l.state.Port), nil)
		if err != nil {
			return fmt.Errorf("asking the API server: %w", err)
		}
		response, err := client.Do(request)
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(response.Status)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the API server is not ready: %w%s", err, l.tail(Control, "kube-apiserver"))
		case <-tick.C:
		}
	}
}

// install deploys what runs in the cluster and waits until it is ready.
func (l *Lab) install(ctx context.Context, s *steps) error {
	config := l.state.Config
	manifests, err := l.manifests()
	if err != nil {
		return err
	}
	if len(manifests) > 0 {
		if err := s.do("manifests are applied", func() error { return l.Apply(ctx, manifests) }); err != nil {
			return err
		}
	}
	var names []string
	for _, node := range l.state.Nodes {
		names = append(names, "node/"+node.Name)
	}
	if err := s.do("nodes have registered", func() error {
		// Pods are refused until the controllers have made the account they run as.
		return l.waitFor(ctx, "node1", "kubelet", append([]string{"--for=create", "serviceaccount/default"}, names...)...)
	}); err != nil {
		return err
	}
	if config.Network == None {
		return nil
	}
	if err := s.do("nodes are ready", func() error {
		return l.waitFor(ctx, "node1", "containerd", append([]string{"--for=condition=Ready"}, names...)...)
	}); err != nil {
		return err
	}
	if config.DNS != None {
		if err := s.do("cluster DNS is ready", func() error {
			if config.DNS == "fairlead" {
				ready := fmt.Sprintf("--for=jsonpath={.status.numberReady}=%d", len(l.state.Nodes))
				return l.waitFor(ctx, "node1", "kubelet", ready, "--namespace=kube-system", "daemonset/fairlead-dns")
			}
			return l.waitFor(ctx, "node1", "kubelet", "--for=condition=Available", "--namespace=kube-system", "deployment/coredns")
		}); err != nil {
			return err
		}
	}
	return s.do("Fairlead says that the network is ready", func() error {
		const network = "networks.fairlead.io/default"
		if err := l.waitFor(ctx, "node1", "kubelet", "--for=create", network); err != nil {
			return err
		}
		return l.waitFor(ctx, "node1", "kubelet", "--for=condition=Ready", network)
	})
}

// waitFor runs kubectl wait. If that fails, the error shows what the cluster
// says, and the end of the log of the service that most likely tells why.
func (l *Lab) waitFor(ctx context.Context, machine, service string, argv ...string) error {
	_, err := l.Kubectl(ctx, append([]string{"wait", "--timeout=150s"}, argv...)...)
	if err == nil || ctx.Err() != nil {
		return err
	}
	seen, _ := l.Kubectl(ctx, "get", "nodes,pods", "--all-namespaces", "--output=wide")
	events, _ := l.Kubectl(ctx, "get", "events", "--all-namespaces", "--field-selector=type!=Normal", "--sort-by=.lastTimestamp")
	return fmt.Errorf("%w\n%s\nthe last warnings:\n%s%s", err, seen, lastLines(events, 8), l.tail(machine, service))
}

// tail is the end of a service's log, headed by its name.
func (l *Lab) tail(machine, service string) string {
	content, err := os.ReadFile(l.world.LogPath(machine, service))
	if err != nil {
		return "\n(" + err.Error() + ")"
	}
	return fmt.Sprintf("\nthe end of the log of %s on %s:\n%s", service, machine, lastLines(string(content), 12))
}

// lastLines returns the last lines of a text, indented and none very long.
func lastLines(text string, count int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	var last strings.Builder
	for _, line := range lines[max(0, len(lines)-count):] {
		if len(line) > 300 {
			line = line[:300] + "…"
		}
		last.WriteString("  " + line + "\n")
	}
	return last.String()
}
