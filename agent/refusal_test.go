package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/fairlead-net/fairlead/cni"
)

// Requests that cannot be met are refused with a reason, and leave nothing.
func TestRefusals(t *testing.T) {
	needNode(t)
	for _, test := range []struct {
		name  string
		cidrs []string
		netns string
		code  uint
		says  string
	}{
		{"range exhausted", []string{"10.244.1.0/31"}, "", types.ErrTryAgainLater, "no address is left in [10.244.1.0/31]"},
		{"no namespace there", []string{"10.244.1.0/24"}, "/run/netns/nowhere", types.ErrInvalidNetNS, "cannot open"},
		{"the node's own namespace", []string{"10.244.1.0/24"}, fmt.Sprintf("/proc/%d/ns/net", os.Getpid()), types.ErrInvalidNetNS, "the node's own"},
		{"not a namespace", []string{"10.244.1.0/24"}, "/etc/hostname", types.ErrInvalidNetNS, "no network namespace"},
		{"another kind of namespace", []string{"10.244.1.0/24"}, "/proc/self/ns/uts", types.ErrInvalidNetNS, "no network namespace"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := start(t, newCluster(test.cidrs...), t.TempDir())
			p := newPod(t, "refused")
			if test.netns != "" {
				p.conf.NetNS = test.netns
			}
			_, err := a.cni.AddNetworkList(context.Background(), a.list(t, "1.1.0"), p.conf)
			var said *types.Error
			if !errors.As(err, &said) || said.Code != test.code || !strings.Contains(said.Error(), test.says) {
				t.Errorf("got %#v", err)
			}
			if devices := podDevices(t); len(devices) > 0 {
				t.Errorf("left: %v", devices)
			}
		})
	}
}

// A node without a range says what to do about it, in the time that it is given.
func TestNodeWithoutRange(t *testing.T) {
	needNode(t)
	a := start(t, newCluster(), t.TempDir())
	request := cni.Request{Command: "ADD", ContainerID: "refused", Interface: "eth0", Timeout: 200 * time.Millisecond}
	said := a.ask(t, request, newPod(t, "refused").netns).Error
	if said == nil || said.Code != types.ErrTryAgainLater || !strings.Contains(said.Msg, "--allocate-node-cidrs") {
		t.Errorf("got %v", said)
	}
	if reply := a.ask(t, cni.Request{Command: "STATUS"}, nil); reply.Error == nil || !strings.Contains(reply.Error.Error(), "--allocate-node-cidrs") {
		t.Errorf("STATUS says %v", reply.Error)
	}
	// All that it does for pods has begun, since it answered; runtimes are not told.
	if left, err := os.ReadDir(a.config.CNIConfDir); err != nil || len(left) > 0 {
		t.Errorf("there is a configuration for runtimes: %v, %v", left, err)
	}
}

// What is not of the plugin is refused, and the agent goes on.
func TestGarbageOnTheSocket(t *testing.T) {
	needNode(t)
	a := start(t, newCluster("10.244.1.0/24"), t.TempDir())
	if stat, err := os.Stat(a.socket()); err != nil || stat.Mode().Perm() != 0o600 {
		t.Errorf("the socket has %v, %v", stat.Mode(), err)
	}
	for _, text := range []string{"", "{", "null", `{"version": 99}`, "GET / HTTP/1.1\r\n\r\n", strings.Repeat("x", 5<<20)} {
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: a.socket(), Net: "unix"})
		must(t, err)
		_, _ = conn.Write([]byte(text)) // the agent need not read it all
		_ = conn.CloseWrite()
		if reply, err := cni.ReadReply(conn); err == nil && reply.Error == nil {
			t.Errorf("%.20q is accepted: %+v", text, reply)
		}
		conn.Close()
	}
	for _, request := range []cni.Request{
		{Command: "DESTROY"}, {Command: "CHECK"}, {Command: "GC"}, {Command: "GC", Config: []byte(`{"cni.dev/valid-attachments": 7}`)},
		{Command: "ADD"}, {Command: "ADD", ContainerID: "a b", Interface: "eth0"}, {Command: "ADD", ContainerID: "a", Interface: "eth0"},
		{Command: "ADD", ContainerID: strings.Repeat("a", 200), Interface: "eth0"},
	} {
		if reply := a.ask(t, request, nil); reply.Error == nil {
			t.Errorf("%+v is accepted", request)
		}
	}
	if reply := a.ask(t, cni.Request{Command: "DEL", ContainerID: "a", Interface: "eth0"}, nil); reply.Error != nil {
		t.Errorf("after that: %v", reply.Error)
	}
}
