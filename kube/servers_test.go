package kube

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/model"
)

// refusing returns an address at which nobody listens.
func refusing(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// impostor returns the address of a server that our authority does not know.
func impostor(t *testing.T) string {
	t.Helper()
	certificate, _ := issue(t, serverName)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).Handshake() // it fails
			conn.Close()
		}
	}()
	return listener.Addr().String()
}

func TestAllServersAreTried(t *testing.T) {
	s := newStub(t)
	s.put(podsPath, stubPod("web", `"spec": {}`))
	s.put("/api/v1/namespaces/default/pods", stubPod("web", `"spec": {}`))
	kubelet := filepath.Join(t.TempDir(), "kubelet.conf")
	config := `{"clusters": [{"name": "c", "cluster": {"server": "` + s.server.URL + `"}}],
		"contexts": [{"name": "x", "context": {"cluster": "c"}}], "current-context": "x"}`
	if err := os.WriteFile(kubelet, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	dead, wrong := refusing(t), impostor(t)
	client := s.client(Options{Servers: []string{dead, "https://" + wrong}, KubeletConfigs: []string{"/nonexistent", kubelet}})
	if _, err := client.Pod(t.Context(), model.PodKey{Namespace: "default", Name: "web"}); err != nil {
		t.Fatalf("reading a pod: %v", err)
	}
	if at := client.servers.candidates()[0]; at.address != s.server.Listener.Addr().String() {
		t.Errorf("the one that worked is not tried first, but %v", at)
	}
	_, err := client.Pod(t.Context(), model.PodKey{Namespace: "default", Name: "none"})
	if !IsNotFound(err) {
		t.Errorf("a pod that there is not: %v", err)
	}

	s.server.Close()
	_, err = client.Pod(t.Context(), model.PodKey{Namespace: "default", Name: "web"})
	var unreachable *UnreachableError
	if !errors.As(err, &unreachable) || len(unreachable.Failures) != 3 {
		t.Fatalf("with all servers gone: %v", err)
	}
	for _, part := range []string{dead + " (configured): ", "connection refused", wrong, "certificate", "--apiserver"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in the error: %v", part, err)
		}
	}
}

// TestBusyServer: a server that takes its time for a handshake gets it.
func TestBusyServer(t *testing.T) {
	t.Parallel()
	s := newStub(t)
	s.put("/api/v1/namespaces/default/pods", stubPod("web", `"spec": {}`))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var accepted atomic.Int32
	go func() {
		for {
			busy, err := listener.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			time.AfterFunc(dialTimeout+500*time.Millisecond, func() {
				defer busy.Close()
				behind, err := net.Dial("tcp", s.server.Listener.Addr().String())
				if err != nil {
					return
				}
				defer behind.Close()
				go func() { _, _ = io.Copy(behind, busy) }()
				_, _ = io.Copy(busy, behind)
			})
		}
	}()
	client := s.client(Options{Servers: []string{listener.Addr().String()}, KubeletConfigs: []string{"/nonexistent"}})
	if _, err := client.Pod(t.Context(), model.PodKey{Namespace: "default", Name: "web"}); err != nil || accepted.Load() != 1 {
		t.Errorf("after %d connections: %v", accepted.Load(), err)
	}
}

// TestMuteServer: one that accepts connections and says nothing does not keep others from
// being tried for as long as the last one may take.
func TestMuteServer(t *testing.T) {
	t.Parallel()
	s := newStub(t)
	s.put("/api/v1/namespaces/default/pods", stubPod("web", `"spec": {}`))
	mute, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	client := s.client(Options{Servers: []string{mute.Addr().String(), s.server.Listener.Addr().String()}, KubeletConfigs: []string{"/nonexistent"}})
	ctx, cancel := context.WithTimeout(t.Context(), busyTimeout-time.Second)
	defer cancel()
	if _, err := client.Pod(ctx, model.PodKey{Namespace: "default", Name: "web"}); err != nil {
		t.Error(err)
	}
}

func TestNoServerIsKnown(t *testing.T) {
	s := newStub(t)
	client := s.client(Options{Servers: []string{}, KubeletConfigs: []string{"/nonexistent"}})
	_, err := client.Pod(t.Context(), model.PodKey{Namespace: "default", Name: "web"})
	if err == nil || !strings.Contains(err.Error(), "--apiserver") || !strings.Contains(err.Error(), "/nonexistent") {
		t.Errorf("error: %v", err)
	}
}

func TestServersAreLearned(t *testing.T) {
	s := newStub(t)
	host, port, err := net.SplitHostPort(s.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s.put(slicesPath, `{"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4",
		"metadata": {"namespace": "default", "name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
		"ports": [{"name": "https", "port": `+port+`}], "endpoints": [{"addresses": ["`+host+`"]}]}`)
	state := t.TempDir()
	source := s.client(Options{StateDir: state}).Source()
	start(t, source)
	path := filepath.Join(state, "apiservers.json")
	for deadline := time.Now().Add(10 * time.Second); ; {
		content, err := os.ReadFile(path)
		if err == nil {
			if want := `{"version":1,"servers":["` + host + ":" + port + "\"]}\n"; string(content) != want {
				t.Errorf("saved %s, want %s", content, want)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("nothing saved: %v; problems: %v", err, source.Problems())
		}
		time.Sleep(10 * time.Millisecond) // a file cannot be waited for
	}
	// The next process finds the server by the file alone.
	next := s.client(Options{Servers: []string{}, KubeletConfigs: []string{"/nonexistent"}, StateDir: state})
	if _, err := next.Pod(context.Background(), model.PodKey{Namespace: "default", Name: "none"}); !IsNotFound(err) {
		t.Errorf("by the file: %v", err)
	}
}

func TestHostPort(t *testing.T) {
	for text, want := range map[string]string{
		"":                        "",
		"10.0.0.1":                "10.0.0.1:443",
		"10.0.0.1:6443":           "10.0.0.1:6443",
		"https://10.0.0.1:6443/x": "10.0.0.1:6443",
		"https://api.example.com": "api.example.com:443",
		"fd00::1":                 "[fd00::1]:443",
		"[fd00::1]":               "[fd00::1]:443",
		"https://[fd00::1]":       "[fd00::1]:443",
		"[fd00::1]:6443":          "[fd00::1]:6443",
		" api.example.com:6443 ":  "api.example.com:6443",
	} {
		if is := hostPort(text); is != want {
			t.Errorf("%q: %q, want %q", text, is, want)
		}
	}
}

func TestConnectWithoutCluster(t *testing.T) {
	t.Setenv("KUBECONFIG", "/nonexistent")
	t.Setenv("HOME", t.TempDir())
	_, err := Connect(Options{})
	if err == nil || !strings.Contains(err.Error(), "--kubeconfig") {
		t.Errorf("error: %v", err)
	}
}
