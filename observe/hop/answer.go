package hop

import (
	"errors"
	"net/netip"
	"slices"

	nft "github.com/google/nftables"

	"github.com/fairlead-net/fairlead/dataplane/nftables"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/observe/trace"
)

// Answer says what the kernel of this node makes of a packet, and what the plan
// that it makes of a snapshot wants. Without a snapshot there is no plan.
func Answer(node string, snapshot *model.Snapshot, q trace.Question) (*trace.Answer, error) {
	r, err := open()
	if err != nil {
		return nil, err
	}
	defer r.handle.Close()
	answer := &trace.Answer{Node: node}
	if q.Enter.By != trace.ByNode {
		r.answer.In = r.enter(q)
	}
	var peer netip.Addr
	if snapshot != nil {
		asked, mac := q, model.MAC{}
		if in := r.answer.In; in != nil && in.Peer != nil {
			mac = in.Peer.MAC
		}
		if !asked.From.IsValid() {
			// Only the kernel knows what the node's own packets come from.
			asked.From = r.ownSource(q.To)
		}
		answer.Plan = trace.Expect(snapshot, node, asked, mac)
		peer = answer.Plan.Remote
	}
	if err := r.serve(q, answer.Plan); err != nil {
		return nil, err
	}
	if to := r.answer.Translated; to.IsValid() {
		q.To = to.Addr()
	} else if answer.Plan != nil && answer.Plan.Translated.IsValid() {
		q.To = answer.Plan.Translated.Addr()
	}
	if q.Enter.By.Tunnels() {
		r.answer.Wire = r.enter(trace.Question{Enter: trace.Enter{By: trace.ByWire, At: q.Enter.At}})
	}
	r.answer.Tables = tables()
	r.firewalls()
	r.read(q, peer)
	if plan := answer.Plan; plan != nil && (r.answer.Out == nil || r.answer.Out.Name != plan.Device) {
		r.answer.Planned = r.byName(plan.Device)
	}
	answer.Kernel = r.answer
	return answer, nil
}

// firewalls reads what is named and not followed: the rest is told without it.
func (r *reader) firewalls() {
	others := nftables.NewFirewall()
	var listed, legacy error
	r.answer.Droppers, listed = others.Droppers()
	r.answer.Legacy, legacy = others.Legacy()
	if err := errors.Join(listed, legacy); err != nil {
		r.answer.Unlisted = err.Error()
	}
}

// tables tells whether the table of nftables is there that dataplane/nftables
// makes. What it holds is not read: that takes long if it is much.
func tables() bool {
	connection, err := nft.New()
	if err != nil {
		return false
	}
	all, err := connection.ListTablesOfFamily(nft.TableFamilyINet)
	return err == nil && slices.ContainsFunc(all, func(t *nft.Table) bool { return t.Name == nftables.TableName })
}
