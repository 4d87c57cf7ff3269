package udptunnel

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/route"
)

var (
	rounds  = flag.Int("rounds", 15, "pairs of runs of the benchmark of streams")
	seconds = flag.Float64("seconds", 1, "of each run")
	ways    = flag.String("ways", "tunnel,vxlan,naive,direct", "that the benchmark of streams compares with the first")
	profile = flag.String("tunnelprofile", "", "write CPU profiles of the tunnels to this path and a number")
)

// Each tunnel and each end of a stream is a process of its own, as on nodes:
// the test binary, told by this variable what to be.
const roleVariable = "UDPTUNNEL_TEST_ROLE"

type role struct {
	Kind    string // tunnel, naive, sink, source
	Local   netip.Addr
	Peers   map[netip.Prefix]netip.Addr
	MTU     int
	To      string
	For     time.Duration
	Profile string
}

func TestMain(m *testing.M) {
	text, ok := os.LookupEnv(roleVariable)
	if !ok {
		os.Exit(m.Run())
	}
	var r role
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		panic(err)
	}
	if err := r.play(); err != nil {
		fmt.Fprintln(os.Stderr, r.Kind, err)
		os.Exit(1)
	}
}

func (r *role) play() error {
	switch r.Kind {
	case "tunnel":
		return r.tunnel()
	case "naive":
		return r.naive()
	case "sink":
		return r.sink()
	default:
		return r.source()
	}
}

// tunnel runs until the standard input ends.
func (r *role) tunnel() error {
	device := route.UDP{Name: route.UDPDevice, Port: testPort, MTU: r.MTU}
	device.Locals[model.FamilyOf(r.Local)] = r.Local
	t := New(slog.Default())
	problems, err := t.Apply(context.Background(), &plan.Node{Name: "node", Route: &route.Plan{
		UDPs: model.MapOf(map[string]route.UDP{device.Name: device}), UDPPeers: model.MapOf(r.Peers),
	}})
	if err != nil || len(problems) > 0 {
		return fmt.Errorf("%v, %w", problems, err)
	}
	if r.Profile != "" {
		f, err := os.Create(r.Profile)
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	fmt.Println("ready")
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return t.Run(ctx)
}

// naive is the obvious tunnel: one packet in one call, no offload.
func (r *role) naive() error {
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	request, _ := unix.NewIfreq(route.UDPDevice)
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return err
	}
	if err := setLink(route.UDPDevice, r.MTU); err != nil {
		return err
	}
	at := netip.AddrPortFrom(r.Local, testPort)
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		return err
	}
	var to netip.AddrPort
	for _, peer := range r.Peers {
		to = netip.AddrPortFrom(peer, testPort)
	}
	fmt.Println("ready")
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, err := unix.Read(fd, b)
			if err == nil {
				_, _ = udp.WriteToUDPAddrPort(b[:n], to)
			}
		}
	}()
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, _, err := udp.ReadFromUDPAddrPort(b)
			if err == nil {
				_, _ = unix.Write(fd, b[:n])
			}
		}
	}()
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// sink prints how many bits came in a second.
func (r *role) sink() error {
	listener, err := net.Listen("tcp", ":5001")
	if err != nil {
		return err
	}
	fmt.Println("ready")
	conn, err := listener.Accept()
	if err != nil {
		return err
	}
	b := make([]byte, 1<<18)
	start := time.Now()
	total := 0
	for {
		n, err := conn.Read(b)
		total += n
		if err != nil {
			break
		}
	}
	fmt.Println(float64(total) * 8 / time.Since(start).Seconds())
	return nil
}

func (r *role) source() error {
	conn, err := net.Dial("tcp", r.To)
	if err != nil {
		return err
	}
	b := make([]byte, 1<<17)
	for start := time.Now(); time.Since(start) < r.For; {
		if _, err := conn.Write(b); err != nil {
			return err
		}
	}
	return conn.Close()
}

// play starts a process in a machine; its output is told line by line. stop
// ends its input and waits for it.
func play(t testing.TB, m *machine, r role) (line func() string, stop func()) {
	t.Helper()
	text, err := json.Marshal(r)
	must(t, err)
	command := exec.Command("/proc/self/exe")
	command.Env = append(os.Environ(), roleVariable+"="+string(text))
	command.Stderr = os.Stderr
	input, err := command.StdinPipe()
	must(t, err)
	output, err := command.StdoutPipe()
	must(t, err)
	m.Do(func() { err = command.Start() }) // it is born where its thread is
	must(t, err)
	line = func() string {
		var text string
		if _, err := fmt.Fscanln(output, &text); err != nil {
			t.Errorf("%s: %v", r.Kind, err)
		}
		return text
	}
	return line, sync.OnceFunc(func() {
		_ = input.Close()
		if err := command.Wait(); err != nil {
			t.Errorf("%s: %v", r.Kind, err)
		}
	})
}

// stream is the bits a second of one TCP stream from the first pod to the second.
func (w *world) stream(t testing.TB) float64 {
	t.Helper()
	line, stopSink := play(t, w.nodes[1].pod, role{Kind: "sink"})
	if line() != "ready" {
		t.Fatal("no sink")
	}
	to := netip.AddrPortFrom(w.nodes[1].podAddress(model.IPv4), 5001)
	_, stop := play(t, w.nodes[0].pod, role{Kind: "source", To: to.String(), For: time.Duration(*seconds * float64(time.Second))})
	stop()
	var rate float64
	_, err := fmt.Sscan(line(), &rate)
	must(t, err)
	stopSink()
	return rate
}

// over starts a tunnel of a kind between two nodes of a world of its own.
func over(t testing.TB, kind string) *world {
	t.Helper()
	const mtu = 1500
	w := newWorld(t, 2, mtu, false)
	for i, n := range w.nodes {
		other := w.nodes[1-i]
		switch kind {
		case "direct":
			for _, family := range model.Families {
				n.addRoute("eth0", other.pods(family), n.outer(family).Prev())
				w.router.addRoute(fmt.Sprintf("to%d", other.number), other.pods(family), other.outer(family))
			}
			continue
		case "vxlan":
			n.vxlan(mtu-50, other)
			continue
		}
		r := role{Kind: kind, Local: n.outer(model.IPv4), MTU: mtu - Overhead(model.IPv4), Peers: map[netip.Prefix]netip.Addr{}}
		for _, family := range model.Families {
			r.Peers[other.pods(family)] = other.outer(model.IPv4)
		}
		if *profile != "" && kind == "tunnel" {
			r.Profile = fmt.Sprintf("%s%d", *profile, n.number)
		}
		line, stop := play(t, n.machine, r)
		t.Cleanup(stop)
		if line() != "ready" {
			t.Fatalf("no %s", kind)
		}
		w.routes(n, route.UDPDevice)
	}
	return w
}

// vxlan makes the kernel's tunnel to one other node.
func (n *node) vxlan(mtu int, other *node) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = "vxlan", mtu
	attrs.HardwareAddr = net.HardwareAddr{2, 0, 0, 0, 0, byte(n.number)}
	device := &netlink.Vxlan{LinkAttrs: attrs, VxlanId: 1, SrcAddr: n.outer(model.IPv4).AsSlice(), Port: 4789,
		VtepDevIndex: n.link("eth0").Attrs().Index}
	must(n.t, n.LinkAdd(device))
	must(n.t, n.LinkSetUp(device))
	mac := net.HardwareAddr{2, 0, 0, 0, 0, byte(other.number)}
	must(n.t, n.NeighSet(&netlink.Neigh{LinkIndex: device.Index, Family: unix.AF_BRIDGE, Flags: unix.NTF_SELF,
		State: unix.NUD_PERMANENT, IP: other.outer(model.IPv4).AsSlice(), HardwareAddr: mac}))
	via := netip.AddrFrom4([4]byte{192, 0, 2, byte(other.number)})
	n.addAddress("vxlan", netip.AddrFrom4([4]byte{192, 0, 2, byte(n.number)}), 24)
	must(n.t, n.NeighSet(&netlink.Neigh{LinkIndex: device.Index, Family: unix.AF_INET,
		State: unix.NUD_PERMANENT, IP: via.AsSlice(), HardwareAddr: mac}))
	n.addRoute("vxlan", other.pods(model.IPv4), via)
}

// BenchmarkStream compares one TCP stream between pods of two nodes through
// the tunnel, the kernel's vxlan, a tunnel that moves one packet a call, and
// plain routing, interleaved. Its figures are medians.
func BenchmarkStream(b *testing.B) {
	kinds := strings.Split(*ways, ",")
	base := kinds[0]
	worlds := map[string]*world{}
	for _, kind := range kinds {
		worlds[kind] = over(b, kind)
	}
	rates := map[string][]float64{}
	for b.Loop() {
		for range *rounds {
			for _, kind := range kinds {
				rates[kind] = append(rates[kind], worlds[kind].stream(b))
			}
			slices.Reverse(kinds) // A B, then B A: a drift hits both alike
		}
	}
	b.ReportMetric(0, "ns/op")
	for kind, all := range rates {
		b.ReportMetric(median(all)/1e9, kind+"-Gbit/s")
		if kind != base {
			var ratios []float64
			for i := range all {
				ratios = append(ratios, rates[base][i]/all[i])
			}
			slices.Sort(ratios)
			b.Logf("%s / %s: median %.2f, %.2f to %.2f in %d pairs", base, kind, median(ratios), ratios[0], ratios[len(ratios)-1], len(ratios))
			b.ReportMetric(median(ratios), base+"/"+kind)
		}
	}
}

func median(of []float64) float64 {
	of = slices.Sorted(slices.Values(of))
	return of[len(of)/2]
}
