package conformance_test

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/fairlead-net/fairlead/dataplane/conformance/netnstest"
	"github.com/fairlead-net/fairlead/model"
)

// TestConnectionsChangeTheirWay: a connection to an endpoint on another node that
// has an address of the node goes on when the way to that node is another one.
func TestConnectionsChangeTheirWay(t *testing.T) {
	n := newServiceNet(t)
	const port = 9100
	echo(n, n.machines[1].pod, port)
	n.setService(web(), nil, 2)
	n.leadTo(port)
	n.applyAll()
	var open []*flowing
	for _, family := range model.Families {
		vips := n.vips(family)
		open = append(open,
			n.open(fmt.Sprintf("node1 to the ClusterIP, %s", family), n.machines[0].space, vips["ClusterIP"]),
			n.open(fmt.Sprintf("outside to node 1's port, %s", family), n.outside, vips["node port 1"]))
	}
	for _, way := range []struct {
		name   string
		change func(*model.Network)
	}{
		{"through VXLAN", func(to *model.Network) { to.DirectRouting = false }},
		{"through another VXLAN", func(to *model.Network) { to.VXLANVNI++ }},
		{"directly", func(to *model.Network) { to.DirectRouting = true }},
	} {
		former, next := n.snapshot.Network, *n.snapshot.Network
		way.change(&next)
		n.snapshot.Network, n.snapshot.Former = &next, &former.Routing
		n.applyAll()
		for _, flow := range open {
			if err := flow.exchange(); err != nil {
				t.Errorf("%s, now %s: %v", flow.name, way.name, err)
			}
		}
	}
}

// TestNodeKeepsPorts: the node's connections to endpoints elsewhere keep their ports,
// directly and through a tunnel, though others are given random ones.
func TestNodeKeepsPorts(t *testing.T) {
	n := newServiceNet(t)
	const port = 9100
	seen := make(chan uint16)
	n.machines[1].pod.Do(func() {
		listener, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		n.check(err)
		t.Cleanup(func() { _ = listener.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				seen <- netip.MustParseAddrPort(conn.RemoteAddr().String()).Port()
				_ = conn.Close()
			}
		}()
	})
	call := func(from *netnstest.Namespace, to netip.AddrPort) (kept bool) {
		from.Do(func() {
			conn, err := net.DialTimeout("tcp", to.String(), 3*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			kept = <-seen == netip.MustParseAddrPort(conn.LocalAddr().String()).Port()
		})
		return kept
	}
	n.setService(web(), nil, 2)
	n.leadTo(port)
	for _, direct := range []bool{true, false} {
		next := *n.snapshot.Network
		next.DirectRouting, next.Masquerade.RandomPorts = direct, true
		n.snapshot.Network = &next
		n.applyAll()
		for _, family := range model.Families {
			vips := n.vips(family)
			for range 3 {
				if !call(n.machines[0].space, vips["ClusterIP"]) {
					t.Errorf("%s, direct %v: the node has another port", family, direct)
				}
			}
			kept := 0
			for range 3 {
				if call(n.outside, vips["node port 1"]) {
					kept++
				}
			}
			if kept == 3 {
				t.Errorf("%s, direct %v: others have no random ports", family, direct)
			}
		}
	}
}

// echo sends back what comes, in both families, until the test ends.
func echo(n *serviceNet, in *netnstest.Namespace, port uint16) {
	in.Do(func() {
		listener, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		n.check(err)
		n.t.Cleanup(func() { _ = listener.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				go func() {
					defer conn.Close()
					for buffer := make([]byte, 1); ; {
						if _, err := conn.Read(buffer); err != nil {
							return
						}
						if _, err := conn.Write(buffer); err != nil {
							return
						}
					}
				}()
			}
		}()
	})
}

// flowing is a connection that is there.
type flowing struct {
	name string
	conn net.Conn
}

func (n *serviceNet) open(name string, from *netnstest.Namespace, to netip.AddrPort) *flowing {
	n.t.Helper()
	f := &flowing{name: name}
	from.Do(func() {
		var err error
		f.conn, err = net.DialTimeout("tcp", to.String(), 3*time.Second)
		if err != nil {
			n.t.Fatalf("%s: %v", name, err)
		}
	})
	n.t.Cleanup(func() { _ = f.conn.Close() })
	if err := f.exchange(); err != nil {
		n.t.Fatalf("%s: %v", name, err)
	}
	return f
}

// exchange sends a byte and waits for it.
func (f *flowing) exchange() error {
	if err := f.conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := f.conn.Write([]byte("x")); err != nil {
		return err
	}
	_, err := f.conn.Read(make([]byte, 1))
	return err
}
