package kube

import (
	"context"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Leader is what the lease of the leading controller says.
type Leader struct {
	Identity string    // empty: none leads
	Renewed  time.Time // by the API server's clock; zero: never
}

// Leader reads a lease. Its error may be that the user must not, or, by
// IsNotFound, that no controller ever led.
func (c *Client) Leader(ctx context.Context, namespace, name string) (*Leader, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	lease, err := c.coordination.Leases(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("reading the lease %s: %w", name, err)
	}
	leader := &Leader{}
	if lease.Spec.HolderIdentity != nil {
		leader.Identity = *lease.Spec.HolderIdentity
	}
	if lease.Spec.RenewTime != nil {
		leader.Renewed = lease.Spec.RenewTime.Time
	}
	return leader, nil
}

// LeaderLease is the name of the lease that controllers lead by, in
// SystemNamespace, and of the ServiceAccount that may take it.
const LeaderLease = "fairlead-controller"

// anyLeader returns a Leader that is zero if no controller ever led, and nil if
// that cannot be told: reading leases is not what everybody may.
func (c *Client) anyLeader(ctx context.Context) *Leader {
	leader, err := c.Leader(ctx, SystemNamespace, LeaderLease)
	if IsNotFound(err) {
		return &Leader{}
	}
	if err != nil {
		return nil
	}
	return leader
}

// NodeNames are the names of all nodes, sorted.
func (c *Client) NodeNames(ctx context.Context) ([]string, error) {
	nodes, err := c.core.Nodes().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return nil, fmt.Errorf("listing nodes: %w", err)
	}
	var names []string
	for i := range nodes.Items {
		names = append(names, nodes.Items[i].Name)
	}
	slices.Sort(names)
	return names, nil
}
