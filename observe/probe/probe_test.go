package probe

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
)

// world is node a, a router and node b. Each is a namespace.
type world struct {
	t            *testing.T
	a, router, b *netnstest.Namespace
}

var (
	addrA = []string{"192.0.2.1", "2001:db8:a::1"}
	addrB = []string{"198.51.100.1", "2001:db8:b::1"}
)

func newWorld(t *testing.T) *world {
	w := &world{t, netnstest.New(t), netnstest.New(t), netnstest.New(t)}
	w.join(w.a, "toa", addrA, []string{"192.0.2.254", "2001:db8:a::254"})
	w.join(w.b, "tob", addrB, []string{"198.51.100.254", "2001:db8:b::254"})
	w.router.Do(func() {
		write(t, "net/ipv4/ip_forward", "1")
		write(t, "net/ipv6/conf/all/forwarding", "1")
	})
	// A new link joins the groups of neighbour discovery up to a second late.
	for _, task := range w.tasks() {
		for range 10 {
			if task.Ping(t.Context(), ICMP).OK {
				break
			}
		}
	}
	return w
}

// join connects a node's eth0 with a device of the router.
func (w *world) join(node *netnstest.Namespace, device string, own, gateways []string) {
	w.router.Do(func() {
		pair := netlink.NewVeth(netlink.LinkAttrs{Name: device})
		pair.PeerName, pair.PeerNamespace = "eth0", netlink.NsFd(int(node.Handle))
		check(w.t, netlink.LinkAdd(pair))
		w.up(device, gateways)
	})
	node.Do(func() {
		w.up("eth0", own)
		link, err := netlink.LinkByName("eth0")
		check(w.t, err)
		for _, gateway := range gateways {
			check(w.t, netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP(gateway)}))
		}
	})
}

func (w *world) up(device string, addrs []string) {
	link, err := netlink.LinkByName(device)
	check(w.t, err)
	check(w.t, netlink.LinkSetUp(link))
	for _, addr := range addrs {
		ip, bits := net.ParseIP(addr), 64
		if ip.To4() != nil {
			ip, bits = ip.To4(), 24
		}
		check(w.t, netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: net.CIDRMask(bits, len(ip)*8)}, Flags: unix.IFA_F_NODAD}))
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func write(t *testing.T, path, value string) {
	t.Helper()
	check(t, unixWrite("/proc/sys/"+path, value))
}

func unixWrite(path, value string) error {
	fd, err := unix.Open(path, unix.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(value))
	return err
}

// in is Task.Here of a namespace.
func in(n *netnstest.Namespace) func(func() error) error {
	return func(open func() error) (err error) {
		n.Do(func() { err = open() })
		return err
	}
}

// serve answers at node b until the test ends.
func (w *world) serve(admit func(netip.Addr) bool) {
	echo := &Echo{Admit: admit, Endpoint: func() bool { return true }}
	for _, addr := range addrB {
		ctx, cancel := context.WithCancel(context.Background())
		ready, ended := make(chan struct{}), make(chan error, 1)
		go func() {
			ended <- echo.Serve(ctx, netip.MustParseAddr(addr), in(w.b), func() { close(ready) })
		}()
		w.t.Cleanup(func() {
			cancel()
			if err := <-ended; err != nil {
				w.t.Error(err)
			}
		})
		select {
		case <-ready:
		case <-time.After(5 * time.Second):
			w.t.Fatal("it does not listen")
		}
	}
}

func (w *world) tasks() (tasks []Task) {
	for _, addr := range addrB {
		tasks = append(tasks, Task{Peer: "b", Path: HostToHost, To: netip.MustParseAddr(addr), MTU: 1500, Here: in(w.a)})
	}
	return tasks
}

func anyone(netip.Addr) bool { return true }

func TestAllAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve(anyone)
	results := All(t.Context(), w.tasks())
	if len(results) != 8 {
		t.Fatalf("%d results: %+v", len(results), results)
	}
	for _, r := range results {
		if !r.OK || r.Kind != MTU && (r.RTT <= 0 || r.RTT > 1) || r.Kind == MTU && (r.Found != 1500 || r.Reduced()) {
			t.Errorf("%+v", r)
		}
		if r.Kind == UDP && !r.Endpoint {
			t.Error("the endpoint is not told of")
		}
	}
}

// TestSilence: of packets that vanish, nothing is said, and that takes a moment
// only.
func TestSilence(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve(anyone)
	w.router.Do(func() { drop(t, nil) })
	began := time.Now()
	results := All(t.Context(), w.tasks())
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	for _, r := range results {
		if r.OK || r.Error != "" || r.Lost != r.Sent || r.Lost == 0 || r.Kind == MTU {
			t.Errorf("%+v", r)
		}
	}
}

// TestRefusals: who refuses, and in which words.
func TestRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t) // nobody listens
	for _, r := range All(t.Context(), w.tasks()) {
		if ping := r.Kind == ICMP || r.Kind == MTU; ping != r.OK {
			t.Errorf("%+v", r)
		} else if !ping && !strings.HasPrefix(r.Error, "refused") || r.Kind == UDP && (r.From != r.To || !r.Refused) {
			t.Errorf("%+v", r)
		}
	}
	w.router.Do(func() {
		link, err := netlink.LinkByName("tob")
		check(t, err)
		check(t, netlink.LinkDel(link))
		// Else it says so once in a second, and not to all that ask.
		for _, limit := range []string{"/proc/sys/net/ipv4/icmp_ratelimit", "/proc/sys/net/ipv6/icmp/ratelimit"} {
			check(t, os.WriteFile(limit, []byte("0"), 0))
		}
	})
	gateways := map[string]string{"IPv4": "192.0.2.254", "IPv6": "2001:db8:a::254"}
	// Of IPv4, Linux says it five times, and then once a second (ip_error): so not to
	// all, and to whom depends on who asks first.
	told := map[string]bool{}
	for _, r := range All(t.Context(), w.tasks()) {
		switch said := strings.Contains(r.Error, "unreachable"); {
		case r.OK, !said && r.Error != "":
			t.Errorf("%+v", r)
		case said && r.Kind != TCP && r.From.String() != gateways[r.Family]:
			t.Errorf("%+v", r)
		case said:
			told[r.Family] = true
		}
	}
	if len(told) != len(gateways) {
		t.Errorf("nobody was told: %v", told)
	}
}

// TestNarrowPath: a router that says what passes makes the path smaller; where
// packets vanish without a word, it is broken. Both are found to the byte.
func TestNarrowPath(t *testing.T) {
	for name, silent := range map[string]bool{"told": false, "silent": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.serve(anyone)
			w.router.Do(func() {
				link, err := netlink.LinkByName("tob")
				check(t, err)
				check(t, netlink.LinkSetMTU(link, 1337))
				if silent {
					dropTooBig(t)
				}
			})
			for _, r := range All(t.Context(), w.tasks()) {
				if r.Kind != MTU {
					if !r.OK {
						t.Errorf("%+v", r)
					}
					continue
				}
				if r.Found != 1337 || r.OK == silent || r.Told == silent || r.Reduced() == silent || r.From.IsValid() == silent {
					t.Errorf("%+v", r)
				}
			}
		})
	}
}

// TestStrangers: who is not of the cluster gets no answer, nor does an answer.
func TestStrangers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve(func(from netip.Addr) bool { return from.Is4() })
	for _, r := range All(t.Context(), w.tasks()) {
		if r.Kind == UDP && r.OK != (r.Family == "IPv4") || r.Kind == TCP && r.OK != (r.Family == "IPv4") {
			t.Errorf("%+v", r)
		}
	}
	echo := &Echo{Admit: anyone}
	var packet [64]byte
	message{kind: answer}.put(packet[:])
	if _, ok := echo.reply(packet[:], &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1)}); ok {
		t.Error("an answer is answered")
	}
	message{kind: question}.put(packet[:])
	if reply, ok := echo.reply(packet[:], &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1)}); !ok || len(reply) > headerSize {
		t.Errorf("a question is answered by %d bytes", len(reply))
	}
}

func TestBucket(t *testing.T) {
	var b bucket
	now, passed := time.Unix(1000, 0), 0
	for i := range 100000 { // in two seconds
		if b.take(now.Add(time.Duration(i) * 20 * time.Microsecond)) {
			passed++
		}
	}
	if passed < 2*echoRate || passed > 3*echoRate+1 {
		t.Errorf("%d of 100000 passed in two seconds", passed)
	}
}

// drop makes the namespace forward nothing that matches; nil is everything.
func drop(t *testing.T, match []expr.Any, hooks ...*nftables.ChainHook) {
	conn := &nftables.Conn{}
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "test"})
	for i, hook := range append(hooks, nftables.ChainHookForward) {
		chain := conn.AddChain(&nftables.Chain{
			Name: string(rune('a' + i)), Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: hook, Priority: nftables.ChainPriorityFilter,
		})
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(match[:len(match):len(match)], &expr.Verdict{Kind: expr.VerdictDrop})})
	}
	check(t, conn.Flush())
}

// dropTooBig drops packets that are too big for the way to b, before the router
// can say so.
func dropTooBig(t *testing.T) {
	drop(t, []expr.Any{
		&expr.Meta{Key: expr.MetaKeyLEN, Register: 1},
		&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 4, Size: 4},
		&expr.Cmp{Op: expr.CmpOpGt, Register: 1, Data: []byte{0, 0, 0x05, 0x39}}, // 1337
	}, nftables.ChainHookPrerouting)
}
