package nftables

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/policy"
	"github.com/fairlead-net/fairlead/whole"
)

// A connection that policies came to forbid ends, where Network.spec.policy says
// so, by being forgotten: its next packet is a new one's, and is judged. That
// alone does not end one of TCP. The kernel takes any packet in the middle of one
// for the first of a new one, by whoever sends it: what comes next from who was
// called would be judged as if he had called, and if that is allowed, all would
// go on. So while connections are cut, a connection of a pod begins as its
// protocol says or not at all.

// cutter forgets connections that policies forbid, beside Apply, since that takes
// longer than a pod that starts should wait for.
type cutter struct {
	wake  chan struct{} // of one element: there is something due
	judge *policy.Plan  // what all connections that there are have been judged by; of Run alone

	mu      sync.Mutex
	due     *policy.Plan // what they are to be judged by; nil: by nothing
	failure error
}

// cutAtMost is how much of the time goes into looking at connections, while
// policies change all the time: a part of so many.
const cutAtMost = 10

// follow says which plan the kernel has now. What could not be done before is
// tried again.
func (c *cutter) follow(node *plan.Node) []model.Problem {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.due = nil
	if node.Policy.CutEstablished {
		c.due = node.Policy
	}
	signal(c.wake)
	if c.failure == nil || c.due == nil {
		return nil
	}
	return []model.Problem{{
		Kind: "Node", Name: node.Name, Field: "policy", Reason: "StaleConnections",
		Message: fmt.Sprintf("connections that policies came to forbid may go on: %v", c.failure),
		Remedy:  "it is tried again; if it stays so, load the kernel's module nf_conntrack_netlink",
	}}
}

// run cuts until the context ends. Apply is wanted once more if it begins to fail,
// or ends to. All sockets are open by now: run may be on another thread.
func (c *cutter) run(ctx context.Context, kernel *tracker, own *rtnl.Handle, failing func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		}
		began := time.Now()
		err := c.cut(kernel, own)
		c.mu.Lock()
		changed := (err == nil) != (c.failure == nil)
		c.failure = err
		c.mu.Unlock()
		if changed {
			failing()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(cutAtMost * time.Since(began)):
		}
	}
}

// cut looks at all connections if some may have come to be forbidden.
func (c *cutter) cut(kernel *tracker, own *rtnl.Handle) error {
	c.mu.Lock()
	plan := c.due
	c.mu.Unlock()
	if plan == nil || !plan.Stricter(c.judge) {
		c.judge = plan
		return nil
	}
	here, err := addressesOf(own)
	if err != nil {
		return err
	}
	for _, family := range model.Families {
		err := kernel.deleteAll(family, 0, func(connection *tracked) bool { return forbids(plan, here, connection) })
		if err != nil {
			return err
		}
	}
	c.judge = plan
	return nil
}

// forbids judges a connection as its first packet was, at both ends. What the
// node itself sends to its pods is not judged, and neither is what belongs to
// another connection. That a name led to an address then, is enough.
func forbids(plan *policy.Plan, here map[netip.Addr]bool, c *tracked) bool {
	if c.related || c.zone {
		return false
	}
	source, called, port := c.source(), c.called().Addr(), c.called().Port()
	from, to := policy.Subject{Direction: model.Egress, Address: source}, policy.Subject{Direction: model.Ingress, Address: called}
	peer, at := called, port
	if _, query := plan.Queries.Get(policy.Query{Protocol: c.protocol, At: c.forward.to}); query {
		peer, at = c.forward.to.Addr(), c.forward.to.Port()
	}
	if !plan.Keeps(from, peer, c.protocol, at) {
		return true
	}
	return !here[source] && !source.IsLoopback() && !plan.Decide(to, source, c.protocol, port).Accept
}

// addressesOf are the node's own.
func addressesOf(own *rtnl.Handle) (map[netip.Addr]bool, error) {
	addresses, err := whole.List(func() ([]rtnl.Addr, error) { return own.AddrList(nil, rtnl.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	all := map[netip.Addr]bool{}
	for _, address := range addresses {
		all[addrOf(address.IP)] = true
	}
	return all, nil
}

// runCutter cuts until what it returns is called.
func (p *Plane) runCutter() (stop func(), err error) {
	kernel, err := openTracker()
	if err != nil {
		return nil, err
	}
	own, err := rtnl.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		kernel.close()
		return nil, fmt.Errorf("open a socket of netlink: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { p.cutter.run(ctx, kernel, own, func() { signal(p.disturbed) }) })
	return func() {
		cancel()
		running.Wait()
		own.Close()
		kernel.close()
	}, nil
}

// addMidstream adds what drops packets of pods' connections that do not begin as
// they should. What pods' own node sends to them first is nobody's to judge, but
// could as well be of a connection that they had and may not have any more.
func (b *batch) addMidstream(input *nft.Chain) {
	midstream := b.AddChain(chain(midstreamChain))
	drop := counted(then(expr.VerdictDrop, "")...)
	const flags, syn, chunk, init = 13, 2, 12, 1
	b.rule(midstream, "TCP that was cut, or that the kernel has forgotten", transport(model.TCP, flags), []expr.Any{
		&expr.Bitwise{SourceRegister: word0, DestRegister: word0, Len: 1, Mask: []byte{syn}, Xor: []byte{0}}, equal(0),
	}, drop)
	b.rule(midstream, "the same of SCTP", transport(model.SCTP, chunk), []expr.Any{
		&expr.Cmp{Op: expr.CmpOpNeq, Register: word0, Data: []byte{init}},
	}, drop)
	output := b.AddChain(&nft.Chain{
		Name: "output-filter", Table: ourTable(), Type: nft.ChainTypeFilter,
		Hooknum: nft.ChainHookOutput, Priority: nft.ChainPriorityFilter,
	})
	fromMidstream(b, input)
	toMidstream(b, output)
}

const midstreamChain = "policy-midstream"

func fromMidstream(b *batch, in *nft.Chain) {
	b.rule(in, "", fromPods(), isNew(), then(expr.VerdictJump, midstreamChain))
}

func toMidstream(b *batch, in *nft.Chain) {
	b.rule(in, "", toPods(), isNew(), then(expr.VerdictJump, midstreamChain))
}

// transport loads a byte of a protocol's header.
func transport(protocol model.Protocol, offset uint32) []expr.Any {
	return []expr.Any{
		meta(expr.MetaKeyL4PROTO, word0), equal(byte(protocol)),
		&expr.Payload{DestRegister: word0, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 1},
	}
}

// isNew matches packets of connections that begin.
func isNew() []expr.Any { return inState(expr.CtStateBitNEW) }

func addrOf(ip net.IP) netip.Addr {
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}
