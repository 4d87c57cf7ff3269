package demo

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-net/fairlead/lab"
	"github.com/fairlead-net/fairlead/lab/world"
)

// visit is one request of a pod or a node, and what should come of it.
type visit struct {
	node    string // where it starts
	pod     string // empty: the node itself asks
	from    string
	target  netip.AddrPort
	to      string
	seenAs  []netip.Addr // one of these must be what the other side sees
	meaning string       // of that address
}

// visit asks the other side whom it sees, watches every interface meanwhile,
// and tells.
func (t *tour) visit(ctx context.Context, v visit) error {
	machines := []string{lab.Router, lab.Internet}
	for _, node := range t.lab.Nodes() {
		machines = append(machines, node.Name)
	}
	capture, err := t.lab.World().Capture(ctx, machines)
	if err != nil {
		return err
	}
	seen, askErr := t.ask(ctx, v)
	packets := capture.Close()

	mark := "✓"
	if askErr != nil || !slices.Contains(v.seenAs, seen) {
		mark = "✗"
		t.failures++
	}
	fmt.Fprintf(t.out, "  %s %s → %s (%s)\n", mark, v.from, v.to, v.target.Addr())
	switch {
	case askErr != nil:
		fmt.Fprintf(t.out, "      no answer: %v\n", askErr)
	case mark == "✗":
		fmt.Fprintf(t.out, "      seen as %s, which should be %s\n", seen, joined(v.seenAs))
	default:
		fmt.Fprintf(t.out, "      seen as %s: %s\n", seen, v.meaning)
	}
	fmt.Fprintf(t.out, "      way     %s\n", way(packets, v.target))
	mtu, err := t.pathMTU(v.node, v.target.Addr())
	if err != nil {
		return err
	}
	fmt.Fprintf(t.out, "      MTU     %s\n", mtu)
	return nil
}

// get asks for a page. It is timeout that bounds it, since Debian's busybox
// crashes on wget -T.
func get(url string) []string { return []string{"timeout", "5", "wget", "-q", "-O", "-", url} }

// ask returns the address that the other side sees.
func (t *tour) ask(ctx context.Context, v visit) (netip.Addr, error) {
	request := get(fmt.Sprintf("http://%s/clientip", v.target))
	var answer string
	var err error
	if v.pod != "" {
		answer, err = t.lab.Kubectl(ctx, append([]string{"-n", "demo", "exec", v.pod, "--"}, request...)...)
	} else {
		answer, err = t.lab.Exec(ctx, v.node, append([]string{"busybox"}, request...)...)
	}
	if err != nil {
		return netip.Addr{}, err
	}
	seen, err := netip.ParseAddrPort(strings.TrimSpace(answer))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("the answer %q is no address", answer)
	}
	return seen.Addr().Unmap(), nil
}

// way is the path of the request's first packet: interfaces by machine.
func way(packets []world.Packet, target netip.AddrPort) string {
	var path strings.Builder
	machine, tunnelled := "", false
	passed := map[string]bool{}
	for _, packet := range packets {
		headers, ok := packet.Headers()
		inmost := headers.Inmost()
		hop := packet.Machine + " " + packet.Interface
		if !ok || netip.AddrPortFrom(inmost.Destination, inmost.DestinationPort) != target || passed[hop] {
			continue
		}
		passed[hop] = true
		switch {
		case path.Len() == 0:
			fmt.Fprintf(&path, "%s: ", packet.Machine)
		case packet.Machine != machine:
			fmt.Fprintf(&path, "  →  %s: ", packet.Machine)
		default:
			path.WriteString(" → ")
		}
		path.WriteString(packet.Interface)
		if headers.Inner != nil && !tunnelled {
			fmt.Fprintf(&path, " [VXLAN %d, %s to %s]", headers.VNI, headers.Source, headers.Destination)
		}
		machine, tunnelled = packet.Machine, headers.Inner != nil
	}
	if path.Len() == 0 {
		return "no packet left the node"
	}
	return path.String()
}

// pathMTU asks the kernel of a node what fits on the way.
func (t *tour) pathMTU(node string, target netip.Addr) (text string, err error) {
	err = t.lab.World().Do(node, func() error {
		routes, err := netlink.RouteGet(net.IP(target.AsSlice()))
		if err != nil || len(routes) == 0 {
			return fmt.Errorf("asking %s for its route to %s: %w", node, target, err)
		}
		link, err := netlink.LinkByIndex(routes[0].LinkIndex)
		if err != nil {
			return fmt.Errorf("asking %s for its route to %s: %w", node, target, err)
		}
		mtu, kind := routes[0].MTU, "direct"
		if mtu == 0 {
			mtu = link.Attrs().MTU
		}
		if link.Type() == "vxlan" {
			kind = "tunnel"
		}
		text = fmt.Sprintf("%d bytes, %s, through %s", mtu, kind, link.Attrs().Name)
		return nil
	})
	return text, err
}

// ownAddresses are all that a node may be known by: those of its links and, to
// pods behind a tunnel, the one on the tunnel.
func (t *tour) ownAddresses(node string) (own []netip.Addr, err error) {
	err = t.lab.World().Do(node, func() error {
		list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
		if err != nil {
			return fmt.Errorf("listing the addresses of %s: %w", node, err)
		}
		for _, address := range list {
			if addr, ok := netip.AddrFromSlice(address.IP); ok && !addr.IsLinkLocalUnicast() && !addr.IsLoopback() {
				own = append(own, addr.Unmap())
			}
		}
		return nil
	})
	return own, err
}
