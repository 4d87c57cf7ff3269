package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
)

// TestPoliciesUnderLoad: while policies are replaced and the agent ends and
// starts anew, under a thousand new connections a second, not a packet comes in
// that they forbid, and none is lost that they allow.
func TestPoliciesUnderLoad(t *testing.T) {
	needNode(t)
	run := t.TempDir()
	cluster := func() *testCluster {
		c := newCluster("10.244.1.0/26", "fd00:10:244:1::/120")
		c.ahead = filter(t)
		for _, name := range []string{"caller", "open", "closed"} {
			c.pods = append(c.pods, &model.Pod{
				PodKey: model.PodKey{Namespace: "default", Name: name}, Node: testNode, Labels: model.LabelsOf(map[string]string{"app": name}),
			})
		}
		return c
	}
	first := cluster()
	a := start(t, first, run)
	first.edit(func(s *model.Snapshot) { closed(s); openTo(s, 0) })
	var calls caller
	var from *pod
	for _, name := range []string{"caller", "open", "closed"} {
		p := newPod(t, name)
		reply := a.ask(t, request("ADD", name), p.netns)
		if reply.Error != nil {
			t.Fatal(reply.Error)
		}
		switch name {
		case "caller":
			from = p
		case "open":
			calls.open = p.addresses(t, reply.Result)
			p.accept(t, 80)
		case "closed":
			calls.closed = p.addresses(t, reply.Result)
			calls.watched = p
		}
	}
	calls.phase.Store("at first")
	before := calls.watched.segments(t)
	calls.run(t, from)
	edits := 0
	for range 3 {
		for range 10 {
			edits++
			calls.phase.Store(fmt.Sprint("change ", edits))
			first.edit(func(s *model.Snapshot) { openTo(s, edits) })
			calls.more(t, 20)
		}
		calls.phase.Store("the agent ends")
		a.stop()
		calls.phase.Store("without an agent")
		calls.more(t, 100)
		calls.phase.Store("an agent starts")
		first = cluster()
		first.first = func(s *model.Snapshot) { closed(s); openTo(s, edits) }
		a = start(t, first, run)
		calls.more(t, 100)
	}
	if n := calls.watched.segments(t) - before; n > 0 {
		t.Errorf("%d segments of TCP came to the pod that nobody may call", n)
	}
	if n := calls.lost.Load(); n > 0 {
		t.Errorf("of %d connections to the pod that may be called, %d were lost at first or at all", calls.made.Load(), n)
		calls.losses.Range(func(what, _ any) bool { t.Log(what); return true })
	}
	t.Logf("%d connections under %d changes of policies and 3 restarts, %d a second", calls.made.Load(), edits, int(float64(calls.made.Load())/time.Since(calls.began).Seconds()))
}

// openTo lets the caller call the pod open, in other words each time, at one port or
// a range of them.
func openTo(s *model.Snapshot, edit int) {
	p := &model.Policy{PolicyKey: model.PolicyKey{Namespace: "default", Name: fmt.Sprint("open", edit%3)}}
	p.Pods.Requirements = []model.Requirement{{Key: "app", Operator: model.In, Values: []string{"open"}}}
	p.Isolates[model.Ingress] = true
	peer := model.Peer{Namespaces: &model.Selector{}, Pods: &model.Selector{Requirements: []model.Requirement{{Key: "app", Operator: model.In, Values: []string{"caller"}}}}}
	if edit%2 == 1 {
		peer.Pods.Requirements[0] = model.Requirement{Key: "app", Operator: model.NotIn, Values: []string{"closed"}}
	}
	far := model.Peer{Block: netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(edit)}), 32)}
	p.Rules[model.Ingress] = []model.PolicyRule{{
		Peers: []model.Peer{peer, far}, Ports: []model.PolicyPort{{Protocol: model.TCP, From: 80 - uint16(edit%3), To: 80}},
	}}
	policies := model.Map[model.PolicyKey, *model.Policy]{}.With(p.PolicyKey, p)
	if old, ok := s.Policies.Get(model.PolicyKey{Namespace: "default", Name: "closed"}); ok {
		policies = policies.With(old.PolicyKey, old)
	}
	s.Policies = policies
}

// caller makes connections from a pod: to one that it may call, and to one that
// nobody may.
type caller struct {
	open, closed []netip.Addr
	watched      *pod // closed
	began        time.Time
	made, lost   atomic.Int64 // to open; lost are those of which a SYN was sent again, too
	phase        atomic.Value // what is being done, in words
	losses       sync.Map     // the same, of those that were lost
}

func (c *caller) lose(to netip.Addr, why string) {
	c.lost.Add(1)
	c.losses.Store(fmt.Sprintf("connection %d to %s, %s: %s", c.made.Load(), to, c.phase.Load(), why), true)
}

// run calls until the test ends.
func (c *caller) run(t *testing.T, from *pod) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	c.began = time.Now()
	go func() {
		done <- inside(from.netns, func() error {
			for turn := time.NewTicker(4 * time.Millisecond); ; {
				for i := range c.open {
					c.call(c.open[i])
					try(c.closed[i])
				}
				select {
				case <-ctx.Done():
					turn.Stop()
					return nil
				case <-turn.C:
				}
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		must(t, <-done)
	})
}

// more waits for so many connections.
func (c *caller) more(t *testing.T, n int64) {
	t.Helper()
	until := c.made.Load() + n
	eventually(t, fmt.Sprintf("%d more connections", n), func() bool { return c.made.Load() >= until })
}

func (c *caller) call(to netip.Addr) {
	defer c.made.Add(1)
	conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(to, 80).String(), 3*time.Second)
	if err != nil {
		c.lose(to, err.Error())
		return
	}
	tcp := conn.(*net.TCPConn)
	if raw, err := tcp.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err != nil || info.Total_retrans > 0 {
				c.lose(to, "its SYN was sent again")
			}
		})
	}
	_ = tcp.SetLinger(0) // no port waits
	_ = tcp.Close()
}

// try sends one SYN and waits for nothing.
func try(to netip.Addr) {
	domain, addr := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: 80, Addr: to.As16()})
	if to.Is4() {
		domain, addr = unix.AF_INET, &unix.SockaddrInet4{Port: 80, Addr: to.As4()}
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return
	}
	_ = unix.Connect(fd, addr)
	_ = unix.Close(fd)
}

// accept takes connections in the pod until the test ends.
func (p *pod) accept(t *testing.T, port uint16) {
	var listener net.Listener
	must(t, inside(p.netns, func() (err error) {
		listener, err = net.Listen("tcp", fmt.Sprintf(":%d", port))
		return err
	}))
	done := make(chan struct{})
	t.Cleanup(func() { _ = listener.Close(); <-done })
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
}

// segments are those of TCP that have come into the pod.
func (p *pod) segments(t *testing.T) (n int) {
	t.Helper()
	must(t, inside(p.netns, func() error {
		text, err := os.ReadFile("/proc/thread-self/net/snmp")
		for _, line := range strings.Split(string(text), "\n") {
			// Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InSegs …
			if fields := strings.Fields(line); len(fields) > 10 && fields[0] == "Tcp:" && fields[1] != "RtoAlgorithm" {
				n = number(fields[10])
			}
		}
		return err
	}))
	return n
}
