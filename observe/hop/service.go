package hop

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane/nftables"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/service"
	"github.com/fairlead-net/fairlead/observe/trace"
	planned "github.com/fairlead-net/fairlead/plan/service"
)

// serve reads what the maps have of a packet's destination. Without a plan, they
// say where it goes.
func (r *reader) serve(q trace.Question, plan *trace.Plan) error {
	if q.Reply || q.Port == 0 {
		return nil
	}
	maps, err := nftables.NewServiceReader()
	if err != nil {
		return err
	}
	defer maps.Close()
	held, err := maps.Read(planned.VIP{Protocol: q.Protocol, At: netip.AddrPortFrom(q.To, q.Port)})
	if err != nil {
		return err
	}
	inside := q.Enter.By == trace.ByPod || q.Enter.By == trace.ByNode
	if plan != nil && plan.Service != nil {
		inside = plan.Service.Inside
	}
	r.answer.Service = trace.HeldService(held, inside)
	if s := r.answer.Service; plan == nil && s != nil && len(s.Choices) > 0 {
		r.answer.Translated = s.Choices[0].Address
		for _, choice := range s.Choices {
			if choice.Address.Addr() == q.Backend.Addr() {
				r.answer.Translated = choice.Address
			}
		}
	}
	return nil
}

// Serve adds to a report of this node what the kernel has: of each VIP whether
// it is as planned, and how many connections are open.
func Serve(plan *planned.Plan, report *service.Report) error {
	reader, err := nftables.NewServiceReader()
	if err != nil {
		return err
	}
	defer reader.Close()
	for i := range report.Ports {
		port := &report.Ports[i]
		for j := range port.VIPs {
			vip := &port.VIPs[j]
			held, err := reader.Read(planned.VIP{Protocol: port.Protocol, At: vip.Address})
			if err != nil {
				return err
			}
			vip.Compare(plan, port.Protocol, held)
		}
	}
	if err := count(report); err != nil {
		return err
	}
	report.Kernel = true
	return nil
}

// led is where connections to a VIP were led.
type led struct {
	vip    planned.VIP
	target netip.AddrPort
}

// count counts connections that are open.
func count(report *service.Report) error {
	vips := map[planned.VIP]struct{}{}
	for _, port := range report.Ports {
		for _, vip := range port.VIPs {
			vips[planned.VIP{Protocol: port.Protocol, At: vip.Address}] = struct{}{}
		}
	}
	counts := map[led]int{}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		var found map[led]int
		list := func() error {
			found = map[led]int{}
			return flows(family, func(f flow) {
				if _, ok := vips[f.to]; ok && f.open && f.led != f.to.At {
					found[led{f.to, f.led}]++
				}
			})
		}
		if err := dump("connections", list); err != nil {
			return err
		}
		maps.Copy(counts, found)
	}
	for i := range report.Ports {
		assign(&report.Ports[i], counts)
	}
	return nil
}

func assign(port *service.Port, counts map[led]int) {
	targets := map[netip.AddrPort]int{}
	for i := range port.VIPs {
		vip := &port.VIPs[i]
		for l, n := range counts {
			if l.vip == (planned.VIP{Protocol: port.Protocol, At: vip.Address}) {
				vip.Connections += n
				targets[l.target] += n
			}
		}
	}
	for i := range port.Endpoints {
		endpoint := &port.Endpoints[i]
		endpoint.Connections = targets[endpoint.Address]
		delete(targets, endpoint.Address)
	}
	for target, n := range targets {
		port.Former = append(port.Former, service.Former{Address: target, Connections: n})
	}
	slices.SortFunc(port.Former, func(a, b service.Former) int { return a.Address.Compare(b.Address) })
}

// flow is a connection as the kernel tracks it.
type flow struct {
	to   planned.VIP    // that it was made to
	led  netip.AddrPort // who answers
	open bool           // it has not ended, as far as the kernel can tell
}

// flows lists all connections of a family, one after the other: there may be
// hundreds of thousands.
func flows(family uint8, each func(flow)) error {
	request := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP)
	request.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0})
	return request.ExecuteIter(unix.NETLINK_NETFILTER, 0, func(message []byte) bool {
		if len(message) >= nl.SizeofNfgenmsg {
			if f, ok := parseFlow(message[nl.SizeofNfgenmsg:]); ok {
				each(f)
			}
		}
		return true
	})
}

// attributes are those of a message, by kind, without the flags of the kind.
func attributes(message []byte) map[uint16][]byte {
	parsed, err := nl.ParseRouteAttr(message)
	if err != nil {
		return nil
	}
	all := make(map[uint16][]byte, len(parsed))
	for _, attribute := range parsed {
		all[attribute.Attr.Type&nl.NLA_TYPE_MASK] = attribute.Value
	}
	return all
}

func parseFlow(message []byte) (f flow, ok bool) {
	all := attributes(message)
	protocol, to, ok := end(all[nl.CTA_TUPLE_ORIG], nl.CTA_IP_V4_DST, nl.CTA_IP_V6_DST, nl.CTA_PROTO_DST_PORT)
	if !ok {
		return f, false
	}
	_, from, ok := end(all[nl.CTA_TUPLE_REPLY], nl.CTA_IP_V4_SRC, nl.CTA_IP_V6_SRC, nl.CTA_PROTO_SRC_PORT)
	f = flow{to: planned.VIP{Protocol: protocol, At: to}, led: from, open: true}
	if protocol == model.TCP {
		state := attributes(attributes(all[nl.CTA_PROTOINFO])[nl.CTA_PROTOINFO_TCP])[nl.CTA_PROTOINFO_TCP_STATE]
		f.open = len(state) == 1 && state[0] >= nl.TCP_CONNTRACK_SYN_SENT && state[0] <= nl.TCP_CONNTRACK_CLOSE_WAIT
	}
	return f, ok
}

// end is one end of a tuple.
func end(tuple []byte, address4, address6, port uint16) (protocol model.Protocol, at netip.AddrPort, ok bool) {
	parts := attributes(tuple)
	ip, ports := attributes(parts[nl.CTA_TUPLE_IP]), attributes(parts[nl.CTA_TUPLE_PROTO])
	raw := ip[address4]
	if raw == nil {
		raw = ip[address6]
	}
	addr, ok := netip.AddrFromSlice(raw)
	if !ok || len(ports[nl.CTA_PROTO_NUM]) != 1 || len(ports[port]) != 2 {
		return 0, at, false
	}
	return model.Protocol(ports[nl.CTA_PROTO_NUM][0]), netip.AddrPortFrom(addr, binary.BigEndian.Uint16(ports[port])), true
}
