// Package nftables makes the kernel's packet filter translate addresses as a
// plan says. It does not route and decides nothing.
//
// What is ours: the table "inet fairlead", whole. No other table is touched.
// The table is written for administrators to read with nft list ruleset, and
// what nft 1.0.6 lists of it can be loaded again.
//
// A Plane is for one goroutine at a time.
package nftables

import (
	"context"
	"fmt"

	nft "github.com/google/nftables"
	"github.com/mdlayher/netlink"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan"
)

// TableName is that of our table, of the family inet.
const TableName = "fairlead"

// Schema is the version of what the table holds, written in its comments. A
// table of any schema is replaced when a Plane first applies.
const Schema = 1

// Plane is the part of a data plane that translates addresses.
type Plane struct {
	known         bool   // the actual sides of the deltas are what the kernel holds
	unsupported   string // what the kernel lacks, once that is known
	pods, cluster prefixSet
}

// New returns a data plane for the network namespace of the thread that calls
// Apply.
func New() *Plane {
	return &Plane{
		pods: prefixSet{
			name: "pods", id: 1,
			comment: fmt.Sprintf("pods of this node (schema %d)", Schema),
		},
		cluster: prefixSet{
			name: "cluster", id: 3,
			comment: fmt.Sprintf("pods of all nodes (schema %d)", Schema),
		},
	}
}

// Forget makes the next Apply replace the table, and look again at what the
// kernel supports.
func (p *Plane) Forget() { p.known, p.unsupported = false, "" }

// Apply carries out the translation part of a plan. See dataplane.Dataplane.
// The table is not read back but replaced, in one transaction: reading large
// sets takes the kernel longer.
func (p *Plane) Apply(ctx context.Context, node *plan.Node) ([]model.Problem, error) {
	if node.Masquerade == nil {
		return nil, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("apply table inet %s: %w", TableName, err)
	}
	p.pods.Desire(node.Masquerade.Pods)
	p.cluster.Desire(node.Masquerade.Cluster)
	if p.unsupported != "" {
		return []model.Problem{p.problem(node.Name)}, nil
	}
	if p.known {
		if p.pods.Pending()+p.cluster.Pending() == 0 {
			return nil, nil
		}
		if p.update() == nil {
			return nil, nil
		}
		// Whatever stood against the change, such as a table that someone has
		// removed, does not stand against a new table.
	}
	if err := p.replace(); err != nil {
		p.known = false
		if p.unsupported = missingFeature(); p.unsupported != "" {
			return []model.Problem{p.problem(node.Name)}, nil
		}
		return nil, fmt.Errorf("replace table inet %s: %w", TableName, err)
	}
	p.known = true
	return nil, nil
}

// update changes only the elements that differ.
func (p *Plane) update() error {
	conn, err := connect()
	if err != nil {
		return err
	}
	for _, set := range p.sets() {
		if err := set.update(conn); err != nil {
			return err
		}
	}
	if err := conn.Flush(); err != nil {
		return err
	}
	for _, set := range p.sets() {
		set.settle()
	}
	return nil
}

// replace puts a new table in the place of whatever is there.
func (p *Plane) replace() error {
	conn, err := connect()
	if err != nil {
		return err
	}
	table := ourTable()
	conn.AddTable(table) // lest there is none to delete
	conn.DelTable(table)
	conn.AddTable(table)
	for _, set := range p.sets() {
		set.Observe(nil)
		if err := set.create(conn); err != nil {
			return err
		}
	}
	if err := addMasquerade(conn, table, p); err != nil {
		return err
	}
	if err := conn.Flush(); err != nil {
		return err
	}
	for _, set := range p.sets() {
		set.settle()
	}
	return nil
}

func (p *Plane) sets() []*prefixSet { return []*prefixSet{&p.pods, &p.cluster} }

func (p *Plane) problem(node string) model.Problem {
	return model.Problem{
		Kind: "Node", Name: node, Field: "masquerade", Reason: "KernelUnsupported",
		Message: "pods cannot leave the cluster with the node's address: the kernel lacks " + p.unsupported,
		Remedy:  "use a kernel of at least that version with nf_tables and its NAT, then restart the agent",
	}
}

func ourTable() *nft.Table {
	return &nft.Table{Family: nft.TableFamilyINet, Name: TableName}
}

// connect returns a batch. Its socket is opened for one Flush, so that no answer
// to a rejected batch is taken for one to the next.
func connect() (*nft.Conn, error) {
	// The kernel takes a batch as one message. The option needs CAP_NET_ADMIN,
	// as everything here.
	const largest = 64 << 20
	return nft.New(nft.WithSockOptions(func(conn *netlink.Conn) error {
		if err := conn.SetWriteBuffer(largest); err != nil {
			return fmt.Errorf("enlarge the send buffer: %w", err)
		}
		if err := conn.SetReadBuffer(largest); err != nil {
			return fmt.Errorf("enlarge the receive buffer: %w", err)
		}
		return nil
	}))
}
