package udptunnel

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/route"
)

// running is a tunnel on a node.
type running struct {
	*Tunnel
	w    *world
	n    *node
	stop func()
}

// start applies a plan to a node and runs it until the test ends.
func (w *world) start(n *node, p *plan.Node) *running {
	w.t.Helper()
	r := &running{Tunnel: New(slog.New(slog.DiscardHandler)), w: w, n: n}
	if problems := r.apply(p); len(problems) > 0 {
		w.t.Fatal(problems)
	}
	w.routes(n, route.UDPDevice)
	r.run()
	w.t.Cleanup(func() {
		r.stop()
		r.Close()
	})
	return r
}

func (r *running) apply(p *plan.Node) []model.Problem {
	r.w.t.Helper()
	var problems []model.Problem
	r.n.Do(func() {
		var err error
		if problems, err = r.Apply(context.Background(), p); err != nil {
			r.w.t.Error(err)
		}
	})
	return problems
}

func (r *running) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			r.w.t.Error(err)
		}
	})
}

// startAll runs the tunnel on all nodes of a world.
func (w *world) startAll(outer model.Family, mtu int) (all []*running) {
	w.t.Helper()
	for _, n := range w.nodes {
		all = append(all, w.start(n, w.plan(n, outer, testPort, 0, mtu-Overhead(outer))))
	}
	return all
}

// transfer sends so many bytes from one pod to another and compares them. It
// returns how many segments TCP sent again.
func (w *world) transfer(from, to *node, family model.Family, size int) (again uint32) {
	w.t.Helper()
	var listener net.Listener
	var client net.Conn
	var err error
	address := net.JoinHostPort(to.podAddress(family).String(), "5000")
	to.pod.Do(func() { listener, err = net.Listen("tcp", address) })
	must(w.t, err)
	defer func() { _ = listener.Close() }()
	received := make(chan []byte, 1)
	go func() {
		hash := sha256.New()
		if conn, err := listener.Accept(); err == nil {
			_ = conn.SetDeadline(time.Now().Add(60 * time.Second))
			_, _ = io.Copy(hash, conn)
			_ = conn.Close()
		}
		received <- hash.Sum(nil)
	}()
	from.pod.Do(func() { client, err = net.DialTimeout("tcp", address, 10*time.Second) })
	must(w.t, err)
	content := make([]byte, size)
	for i := range content {
		content[i] = byte(i * i >> 7)
	}
	must(w.t, client.SetDeadline(time.Now().Add(60*time.Second)))
	_, err = client.Write(content)
	must(w.t, err)
	must(w.t, client.(*net.TCPConn).CloseWrite())
	want := sha256.Sum256(content)
	if !bytes.Equal(<-received, want[:]) {
		w.t.Errorf("%s: what came is not what was sent", family)
	}
	raw, err := client.(*net.TCPConn).SyscallConn()
	must(w.t, err)
	must(w.t, raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err == nil {
			again = info.Total_retrans
		}
	}))
	_ = client.Close()
	return again
}

// open opens a UDP socket in a machine.
func open(t testing.TB, m *machine, at netip.AddrPort) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	var err error
	m.Do(func() { conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at)) })
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// echo answers what comes to a pod's port 7.
func (w *world) echo(n *node, family model.Family) netip.AddrPort {
	at := netip.AddrPortFrom(n.podAddress(family), 7)
	conn := open(w.t, n.pod, at)
	go func() {
		b := make([]byte, 1<<16)
		for {
			length, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = conn.WriteToUDPAddrPort(b[:length], from)
		}
	}()
	return at
}

func ask(conn *net.UDPConn, to netip.AddrPort, size int) error {
	question, answer := bytes.Repeat([]byte{byte(size), 1, 2}, size/3+1)[:size], make([]byte, 1<<16)
	if _, err := conn.WriteToUDPAddrPort(question, to); err != nil {
		return err
	}
	_ = conn.SetReadDeadline(time.Now().Add(time.Second))
	n, _, err := conn.ReadFromUDPAddrPort(answer)
	if err == nil && !bytes.Equal(answer[:n], question) {
		err = fmt.Errorf("the answer of %d bytes is not the question of %d", n, size)
	}
	return err
}

func TestTraffic(t *testing.T) {
	for _, outer := range model.Families {
		t.Run("over "+outer.String(), func(t *testing.T) {
			w := newWorld(t, 3, 1500, false)
			w.startAll(outer, 1500)
			for _, inner := range model.Families {
				w.transfer(w.nodes[0], w.nodes[1], inner, 20<<20)
				w.transfer(w.nodes[2], w.nodes[0], inner, 1<<20)
				to := w.echo(w.nodes[2], inner)
				conn := open(t, w.nodes[1].pod, netip.AddrPortFrom(w.nodes[1].podAddress(inner), 0))
				for _, size := range []int{0, 1, 1000, 1500, 5000, 60000} { // fragments, too
					// IPv6 learns the MTU by a lost packet, in each direction.
					err := ask(conn, to, size)
					for again := 0; again < 2 && err != nil && inner == model.IPv6; again++ {
						err = ask(conn, to, size)
					}
					if err != nil {
						t.Errorf("UDP over %s, %d bytes: %v", inner, size, err)
					}
				}
				w.ping(w.nodes[0], w.nodes[1], inner)
				for _, size := range []int{1000, 100} {
					if lost := w.burst(w.nodes[0], w.nodes[1], inner, 600, size); len(lost) > 0 {
						t.Errorf("UDP over %s: of 600 datagrams of %d bytes %d are lost", inner, size, len(lost))
					}
				}
			}
		})
	}
}

// ping sends an ICMP echo request, whose checksum no device finishes.
func (w *world) ping(from, to *node, family model.Family) {
	w.t.Helper()
	network, request := "ip4:icmp", []byte{8, 0, 0, 0, 0, 1, 0, 1, 'x'}
	if family == model.IPv6 {
		network, request = "ip6:ipv6-icmp", []byte{128, 0, 0, 0, 0, 1, 0, 1, 'x'}
	} else {
		binary.BigEndian.PutUint16(request[2:], ^slowSum(request))
	}
	var conn net.PacketConn
	var err error
	from.pod.Do(func() { conn, err = net.ListenPacket(network, from.podAddress(family).String()) })
	must(w.t, err)
	defer func() { _ = conn.Close() }()
	_, err = conn.WriteTo(request, &net.IPAddr{IP: to.podAddress(family).AsSlice()})
	must(w.t, err)
	must(w.t, conn.SetReadDeadline(time.Now().Add(3*time.Second)))
	for answer := make([]byte, 100); ; {
		n, _, err := conn.ReadFrom(answer)
		if err != nil {
			w.t.Fatalf("ICMP over %s: %v", family, err)
		}
		if n == len(request) && answer[0] == request[0]&128+(request[0]&128)>>7 {
			return
		}
	}
}

// burst sends datagrams, as super-packets of 60, and returns the numbers of
// those that do not arrive.
func (w *world) burst(from, to *node, family model.Family, count, size int) (lost []int) {
	w.t.Helper()
	at := netip.AddrPortFrom(to.podAddress(family), 9)
	receiver := open(w.t, to.pod, at)
	defer func() { _ = receiver.Close() }()
	raw, err := receiver.SyscallConn()
	must(w.t, err)
	must(w.t, raw.Control(func(fd uintptr) {
		must(w.t, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20))
	}))
	sender := open(w.t, from.pod, netip.AddrPortFrom(from.podAddress(family), 0))
	content := make([]byte, count*size)
	for i := range count {
		binary.BigEndian.PutUint32(content[i*size:], uint32(i))
	}
	var segment control
	length := segment.setSegment(size)
	oob := make([]byte, length)
	binary.NativeEndian.PutUint64(oob, uint64(unix.CmsgLen(2)))
	binary.NativeEndian.PutUint32(oob[8:], unix.SOL_UDP)
	binary.NativeEndian.PutUint32(oob[12:], unix.UDP_SEGMENT)
	binary.NativeEndian.PutUint16(oob[16:], uint16(size))
	for message := range slices.Chunk(content, 60*size) {
		_, _, err := sender.WriteMsgUDPAddrPort(message, oob, at)
		must(w.t, err)
	}
	seen := make([]bool, count)
	quiet := 10 * time.Second // the first may wait for the way to be found, on a busy machine
	for b := make([]byte, 1<<16); ; quiet = time.Second {
		must(w.t, receiver.SetReadDeadline(time.Now().Add(quiet)))
		n, _, err := receiver.ReadFromUDPAddrPort(b)
		if err != nil {
			break
		}
		if n != size {
			w.t.Errorf("a datagram of %d bytes came as one of %d", size, n)
		}
		seen[binary.BigEndian.Uint32(b)] = true
	}
	for i, ok := range seen {
		if !ok {
			lost = append(lost, i)
		}
	}
	return lost
}

func (m *machine) nft(rules string) string {
	m.t.Helper()
	var output []byte
	m.Do(func() {
		command := exec.Command("nft", "-f", "-")
		command.Stdin = strings.NewReader(rules)
		var err error
		if output, err = command.CombinedOutput(); err != nil {
			m.t.Errorf("nft: %v: %s", err, output)
		}
	})
	return string(output)
}

// One datagram lost on the way is one packet lost, though both ends move
// dozens at once.
func TestOneLostDatagramIsOneLostPacket(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs nft")
	}
	for _, outer := range model.Families {
		t.Run("over "+outer.String(), func(t *testing.T) {
			w := newWorld(t, 2, 1500, true)
			all := w.startAll(outer, 1500)
			w.router.nft(`table inet t {
chain c {
type filter hook forward priority 0
udp dport 8285 udp length > 900 numgen inc mod 40 == 20 counter drop
}
}
`)
			for _, inner := range model.Families {
				if lost := w.burst(w.nodes[0], w.nodes[1], inner, 40, 1000); len(lost) != 1 {
					t.Errorf("UDP over %s: of 40 datagrams of which the router drops one, %v are lost", inner, lost)
				}
			}
			const size = 4 << 20
			again := w.transfer(w.nodes[0], w.nodes[1], model.IPv4, size)
			// One of 40 is lost, and of what is sent again as well.
			segments := size / 1400
			if int(again) < segments/45 || int(again) > segments/25 {
				t.Errorf("TCP sent %d of %d segments again", again, segments)
			}
			if sent := all[0].Counters()[Sent]; sent < uint64(segments) {
				t.Errorf("%d segments went as %d packets", segments, sent)
			}
		})
	}
}

func TestSmallerMTUOnTheWay(t *testing.T) {
	for _, outer := range model.Families {
		for _, where := range []string{"there", "here"} {
			t.Run(where+" over "+outer.String(), func(t *testing.T) {
				w := newWorld(t, 2, 1500, false)
				all := w.startAll(outer, 1500)
				far := w.nodes[1]
				if where == "here" {
					far = w.nodes[0]
				}
				must(t, far.LinkSetMTU(far.link("eth0"), 1300))
				device := w.router.link(fmt.Sprintf("to%d", far.number))
				must(t, w.router.LinkSetMTU(device, 1300))
				w.transfer(w.nodes[0], w.nodes[1], model.IPv4, 2<<20)
				w.transfer(w.nodes[1], w.nodes[0], model.IPv6, 2<<20)
				if failed := all[0].Counters()[SendFailed]; failed > 0 {
					t.Errorf("%d packets were not sent", failed)
				}
			})
		}
	}
}

// What a socket tells once of one peer does not keep it from serving others.
func TestSocketErrorsPass(t *testing.T) {
	w := newWorld(t, 3, 1500, false)
	all := w.startAll(model.IPv4, 1500)
	raw := all[0].path.Load().current[0].raw
	must(t, raw.Control(func(fd uintptr) {
		must(t, unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_RECVERR, 1)) // else, few errors come here
	}))
	all[2].stop()
	all[2].Close()
	dead := netip.AddrPortFrom(w.nodes[2].podAddress(model.IPv4), 7)
	to := w.echo(w.nodes[1], model.IPv4)
	conn := open(t, w.nodes[0].pod, netip.AddrPortFrom(w.nodes[0].podAddress(model.IPv4), 0))
	// An error is told to whoever asks first, which may be the sender.
	for deadline := time.Now().Add(10 * time.Second); all[0].Counters()[ReceiveFailed] == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the socket told of no error")
		}
		_, err := conn.WriteToUDPAddrPort([]byte("x"), dead)
		must(t, err)
	}
	time.Sleep(100 * time.Millisecond) // for the last error
	began := time.Now()
	must(t, ask(conn, to, 100))
	if after := time.Since(began); after > 500*time.Millisecond {
		t.Errorf("after an error, the next datagram was received %v later", after)
	}
}

func TestUnknownDestinationIsCounted(t *testing.T) {
	w := newWorld(t, 2, 1500, false)
	all := w.startAll(model.IPv4, 1500)
	nowhere := netip.MustParseAddr("10.99.0.1")
	w.nodes[0].addRoute(route.UDPDevice, netip.PrefixFrom(nowhere, 32), netip.Addr{})
	conn := open(t, w.nodes[0].pod, netip.AddrPortFrom(w.nodes[0].podAddress(model.IPv4), 0))
	before := all[0].Counters()[NoPeer]
	const sent = 20 // more than the kernel's own multicasts to the device
	for range sent {
		_, err := conn.WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(nowhere, 1))
		must(t, err)
	}
	w.transfer(w.nodes[0], w.nodes[1], model.IPv4, 1000)
	if after := all[0].Counters()[NoPeer]; after < before+sent {
		t.Errorf("%d packets without a peer, want %d", after, before+sent)
	}
}
