package kube

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

// servers is where the API server may be found, by ways that do not need the
// network which this program makes: the Service address is never among them.
type servers struct {
	configured  []string // by the user; each host or host:port or URL
	kubeconfigs []string // of the kubelet; only the server is taken from them
	path        string   // where learned addresses are kept over restarts; empty: nowhere
	tls         func() (*tls.Config, error)

	mu      sync.Mutex
	watched bool     // learned is from a watch of this process, not from path
	learned []string // from the EndpointSlice, in random order
	last    string   // worked last
}

// server is an address with the place that it is from.
type server struct{ address, origin string }

// dialTimeout is for one address: for TCP, and as long again for the TLS handshake.
const dialTimeout = 3 * time.Second

// busyTimeout is for the handshake with the last one. A server that accepts connections
// is there, and busy with the handshakes of a whole cluster, perhaps: who gives up and
// begins anew makes more of them. All of client-go waits as long.
const busyTimeout = 10 * time.Second

// serverName is a name that the certificate of every API server has, because
// that is how pods know it.
const serverName = "kubernetes.default.svc"

// saved is the file of learned addresses.
type saved struct {
	Version int      `json:"version"` // 1
	Servers []string `json:"servers"` // host:port
}

// load reads what another process has learned: an earlier one of this agent,
// or the agent for the controller. A file that cannot be read is as good as
// none: the watch will write it anew.
func (s *servers) load() {
	var file saved
	content, err := os.ReadFile(s.path)
	if err == nil && json.Unmarshal(content, &file) == nil && file.Version == 1 {
		s.learned = shuffled(file.Servers)
	}
}

// learn takes the addresses of the EndpointSlice and keeps them on disk.
func (s *servers) learn(addresses []string) error {
	slices.Sort(addresses)
	addresses = slices.Compact(addresses)
	s.mu.Lock()
	defer s.mu.Unlock()
	known := slices.Clone(s.learned)
	slices.Sort(known)
	if len(addresses) == 0 || s.watched && slices.Equal(known, addresses) {
		return nil
	}
	s.watched, s.learned = true, shuffled(addresses)
	if s.path == "" {
		return nil
	}
	content, err := json.Marshal(saved{Version: 1, Servers: addresses})
	if err != nil {
		return fmt.Errorf("encoding the addresses of the API server: %w", err)
	}
	return writeFile(s.path, append(content, '\n'))
}

// shuffled keeps thousands of agents from all trying the same server first.
func shuffled(addresses []string) []string {
	addresses = slices.Clone(addresses)
	rand.Shuffle(len(addresses), func(i, j int) { addresses[i], addresses[j] = addresses[j], addresses[i] })
	return addresses
}

// writeFile replaces a file so that a crash leaves the old or the new one.
func writeFile(path string, content []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	_, err = temp.Write(content)
	// The controller is another user than the agent.
	err = errors.Join(err, temp.Chmod(0o644), temp.Sync(), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, errors.Join(err, os.Remove(temp.Name())))
	}
	return nil
}

// candidates are all addresses, the one that worked last first. The kubelet's
// files are read each time, as they may come or change at any time.
func (s *servers) candidates() []server {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.watched && s.path != "" {
		s.load()
	}
	var all []server
	add := func(address, origin string) {
		if address != "" && !slices.ContainsFunc(all, func(known server) bool { return known.address == address }) {
			all = append(all, server{address, origin})
		}
	}
	add(s.last, "worked last")
	for _, text := range s.configured {
		add(hostPort(text), "configured")
	}
	for _, path := range s.kubeconfigs {
		add(kubeletServer(path), path)
	}
	for _, address := range s.learned {
		add(address, "EndpointSlice default/kubernetes")
	}
	return all
}

// kubeletServer is the address in a kubeconfig, or empty.
func kubeletServer(path string) string {
	config, err := clientcmd.LoadFromFile(path)
	if err != nil {
		return ""
	}
	if current := config.Contexts[config.CurrentContext]; current != nil {
		if cluster := config.Clusters[current.Cluster]; cluster != nil {
			return hostPort(cluster.Server)
		}
	}
	return ""
}

// hostPort makes host:port of an address as people write it.
func hostPort(text string) string {
	text = strings.TrimSpace(text)
	if u, err := url.Parse(text); err == nil && u.Host != "" {
		text = u.Host
	}
	if text == "" {
		return ""
	}
	if _, _, err := net.SplitHostPort(text); err == nil {
		return text
	}
	return net.JoinHostPort(strings.Trim(text, "[]"), "443")
}

// dial connects to the first server that answers with a certificate that our
// authority has signed. The error tells what was wrong with each.
func (s *servers) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	config, err := s.tls()
	if err != nil {
		return nil, err
	}
	all := s.candidates()
	if len(all) == 0 {
		return nil, fmt.Errorf("no address of the API server is known: give one with --apiserver "+
			"or the environment variable %s (looked in %s)", serversVariable, strings.Join(s.kubeconfigs, ", "))
	}
	var failures []error
	for i, at := range all {
		patience := dialTimeout
		if i == len(all)-1 {
			patience = busyTimeout
		}
		conn, err := dialTLS(ctx, at.address, config, patience)
		if err == nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.last = at.address
			return conn, nil
		}
		failures = append(failures, fmt.Errorf("%s (%s): %w", at.address, at.origin, err))
	}
	return nil, &UnreachableError{failures}
}

func dialTLS(ctx context.Context, address string, config *tls.Config, patience time.Duration) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: dialTimeout}
	plain, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn := tls.Client(plain, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = plain.Close()
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return conn, nil
}

// UnreachableError says that no API server could be connected to, and why.
type UnreachableError struct {
	Failures []error // one for each address tried
}

func (e *UnreachableError) Error() string {
	texts := make([]string, len(e.Failures))
	for i, failure := range e.Failures {
		texts[i] = failure.Error()
	}
	return "no API server can be reached: " + strings.Join(texts, "; ") +
		": check that it runs and that this node's firewall and routes let it through, or give its address with --apiserver"
}

// Unwrap returns what was wrong with each address.
func (e *UnreachableError) Unwrap() []error { return e.Failures }

// tlsFromCA returns a maker of TLS configs. The file is read each time, as the
// kubelet replaces it when the cluster's authority changes.
func tlsFromCA(path string) func() (*tls.Config, error) {
	return func() (*tls.Config, error) {
		pem, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("reading the API server's authority: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("reading the API server's authority: no certificate in %s", path)
		}
		return &tls.Config{
			RootCAs:    pool,
			ServerName: serverName,
			MinVersion: tls.VersionTLS12,
			NextProtos: []string{"h2", "http/1.1"},
		}, nil
	}
}
