package nftables

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane/nftables/listing"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
	"github.com/fairlead-net/fairlead/plan/firewall"
)

// Firewall is the part of a data plane that lets pods' packets pass the
// firewalls of others, and that knows those. In the chains of a plan it puts
// rules first that accept them, written as iptables writes its own, so that
// iptables lists them: one for packets from pods and one for those to them, of
// each range. They bear Mark. Nothing else of others is changed.
//
// A Firewall is for one goroutine at a time, but for its Run and Survey.
type Firewall struct {
	// Beside is a Plane of the same network namespace, whose first Apply is waited
	// for before anything is watched; nil: none.
	Beside *Plane

	disturbed, surveyed chan struct{} // of one element

	mu      sync.Mutex
	known   bool                                 // the rules are as accepts says, as far as was heard
	accepts model.Map[firewall.Accept, struct{}] // as applied last
	forward map[model.ForwardChain]bool          // those that were surveyed last, and at the hook
}

// Mark begins the comment of each of our rules in chains of others.
const Mark = "fairlead: "

// NewFirewall returns a data plane for the network namespace of the thread that
// calls its methods.
func NewFirewall() *Firewall {
	return &Firewall{disturbed: make(chan struct{}, 1), surveyed: make(chan struct{}, 1)}
}

// editable are the chains in which there may be rules of ours.
func editable() (chains []*nft.Chain) {
	for _, family := range []nft.TableFamily{nft.TableFamilyIPv4, nft.TableFamilyIPv6} {
		chains = append(chains, &nft.Chain{Name: "FORWARD", Table: &nft.Table{Family: family, Name: "filter"}})
	}
	return chains
}

var familyNames = map[nft.TableFamily]string{
	nft.TableFamilyIPv4: "ip", nft.TableFamilyIPv6: "ip6", nft.TableFamilyINet: "inet",
}

func chainOf(chain *nft.Chain) model.ForwardChain {
	return model.ForwardChain{Family: familyNames[chain.Table.Family], Table: chain.Table.Name, Chain: chain.Name}
}

// Apply makes the rules be as a plan says. See dataplane.Dataplane.
func (f *Firewall) Apply(ctx context.Context, node *plan.Node) ([]model.Problem, error) {
	if node.Firewall == nil {
		return nil, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("apply rules in firewalls of others: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.known && f.accepts == node.Firewall.Accepts {
		return nil, nil
	}
	var problems []model.Problem
	for _, chain := range editable() {
		if err := f.put(chain, node.Firewall.Accepts); err != nil {
			problems = append(problems, model.Problem{
				Kind: "Node", Name: node.Name, Field: "nftables " + chainOf(chain).String(), Reason: "KernelRefused",
				Message: "pods' packets may be dropped there, for the kernel refused a rule that accepts them: " + err.Error(),
				Remedy:  "it is tried again; if it stays so, compare with nft list chain " + chainOf(chain).String(),
			})
		}
	}
	f.known, f.accepts = len(problems) == 0, node.Firewall.Accepts
	return problems, nil
}

// Remove removes all rules of ours from chains of others. It is no error if
// there is none, or a kernel without nftables.
func (f *Firewall) Remove() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.known = false
	for _, chain := range editable() {
		if err := f.put(chain, model.Map[firewall.Accept, struct{}]{}); err != nil && !unknown(err) {
			return fmt.Errorf("remove rules from %s: %w", chainOf(chain), err)
		}
	}
	return nil
}

// put makes a chain have our rules for what is accepted in it, and no others of
// ours, in one transaction. Those that are there stay where they are.
func (f *Firewall) put(chain *nft.Chain, accepts model.Map[firewall.Accept, struct{}]) error {
	wanted := map[string][]expr.Any{} // by comment
	for accept := range accepts.All() {
		if accept.Chain == chainOf(chain) {
			wanted[Mark+"from pods of "+accept.Pods.String()] = acceptFrom(accept.Pods)
			wanted[Mark+"to pods of "+accept.Pods.String()] = acceptTo(accept.Pods)
		}
	}
	there, err := listing.Rules(chain)
	if err != nil && !unknown(err) {
		return err
	}
	b, err := newBatch(inPieces)
	if err != nil {
		return err
	}
	stale := unwanted(there, wanted)
	for comment, exprs := range wanted {
		b.InsertRule(&nft.Rule{
			Table: chain.Table, Chain: chain, Exprs: exprs,
			UserData: userdata.AppendString(nil, userdata.TypeComment, comment),
		})
	}
	for _, rule := range stale {
		if err := b.DelRule(&nft.Rule{Table: chain.Table, Chain: chain, Handle: rule.Handle}); err != nil {
			return err
		}
	}
	refused, err := b.send()
	for _, refusal := range refused {
		err = refusal.err
	}
	if errors.Is(err, unix.ENOENT) {
		chains, failed := listing.Chains(chain.Table.Family)
		is := func(c *nft.Chain) bool { return c.Table.Name == chain.Table.Name && c.Name == chain.Name }
		if failed == nil && !slices.ContainsFunc(chains, is) {
			return nil // it went a moment ago, of which the next survey tells
		}
	}
	return err
}

// unwanted are rules of ours that are to go, by their comments: those that are not
// wanted, or are there twice. Those that are there are wanted no longer.
func unwanted(there []*nft.Rule, wanted map[string][]expr.Any) (stale []*nft.Rule) {
	for _, rule := range there {
		comment := commentOf(rule)
		if !strings.HasPrefix(comment, Mark) {
			continue
		}
		if _, ok := wanted[comment]; !ok {
			stale = append(stale, rule)
		}
		delete(wanted, comment)
	}
	return stale
}

// commentOf reads it as nft has written it, or as iptables has, which restores
// what it has saved in its own way.
func commentOf(rule *nft.Rule) string {
	if comment, ok := userdata.GetString(rule.UserData, userdata.TypeComment); ok {
		return comment
	}
	for _, part := range rule.Exprs {
		match, ok := part.(*expr.Match)
		if !ok || match.Name != "comment" {
			continue
		}
		switch text := match.Info.(type) {
		case *xt.Comment:
			return strings.TrimRight(string(*text), "\x00")
		case *xt.Unknown:
			comment, _, _ := strings.Cut(string(*text), "\x00")
			return comment
		}
	}
	return ""
}

// podDevices begins the names of pods' interfaces on the node.
const podDevices = "fl"

func acceptFrom(pods netip.Prefix) []expr.Any {
	at := headers[model.FamilyOf(pods.Addr())]
	return acceptWhere(expr.MetaKeyIIFNAME, at.source, pods)
}

func acceptTo(pods netip.Prefix) []expr.Any {
	at := headers[model.FamilyOf(pods.Addr())]
	return acceptWhere(expr.MetaKeyOIFNAME, at.dest, pods)
}

// acceptWhere is what iptables makes of -i fl+ -s PODS -j ACCEPT, and the like.
// It knows only the older registers of 16 bytes.
func acceptWhere(name expr.MetaKey, offset uint32, pods netip.Prefix) []expr.Any {
	const register = unix.NFT_REG_1
	length := pods.Addr().BitLen() / 8
	return []expr.Any{
		&expr.Meta{Key: name, Register: register},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte(podDevices)},
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(length)},
		&expr.Bitwise{
			SourceRegister: register, DestRegister: register, Len: uint32(length),
			Mask: net.CIDRMask(pods.Bits(), length*8), Xor: make([]byte, length),
		},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: pods.Masked().Addr().AsSlice()},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictAccept},
	}
}

// Surveyed tells that Survey may say something else than before. It is told only
// while Run runs.
func (f *Firewall) Surveyed() <-chan struct{} { return f.surveyed }

// Disturbed tells that a chain in which there are rules of ours has changed. It
// is told only while Run runs.
func (f *Firewall) Disturbed() <-chan struct{} { return f.disturbed }

// Run watches the firewalls of others until the context ends, in the network
// namespace of the calling thread.
func (f *Firewall) Run(ctx context.Context) error {
	if f.Beside != nil && !f.Beside.beginning.wait(ctx) {
		return nil
	}
	var survey, rules bool
	err := listen(ctx, func(event event) {
		switch {
		case event.begins, event.lost:
			f.changed(true, true)
		case event.ends:
			f.changed(survey, rules)
			survey, rules = false, false
		default:
			s, r := f.concerns(event)
			survey, rules = survey || s, rules || r
		}
	})
	if err != nil {
		return fmt.Errorf("watch firewalls: %w", err)
	}
	return nil
}

// concerns tells whether an event may change what Survey says, and the rules of
// ours.
func (f *Firewall) concerns(event event) (survey, rules bool) {
	family, ok := familyNames[event.family]
	if !ok || event.table == TableName && event.family == nft.TableFamilyINet {
		return false, false
	}
	chain := model.ForwardChain{Family: family, Table: event.table, Chain: event.chain}
	ours := firewall.Editable(model.ForwardChain{Family: family, Table: event.table, Chain: "FORWARD"})
	f.mu.Lock()
	defer f.mu.Unlock()
	switch event.kind {
	case unix.NFT_MSG_DELTABLE:
		return true, ours
	case unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN:
		return event.base || f.forward[chain], firewall.Editable(chain)
	case unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE:
		return f.forward[chain], firewall.Editable(chain) && event.kind == unix.NFT_MSG_DELRULE
	}
	return false, false
}

func (f *Firewall) changed(survey, rules bool) {
	if survey {
		signal(f.surveyed)
	}
	if rules {
		f.mu.Lock()
		f.known = false
		f.mu.Unlock()
		signal(f.disturbed)
	}
}
