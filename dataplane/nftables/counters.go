package nftables

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"

	"github.com/fairlead-net/fairlead/dataplane"
	"github.com/fairlead-net/fairlead/dataplane/nftables/listing"
)

// Counters implements dataplane.Counted: what the rules of our table have met,
// by their comments, sorted. Without a table there are none. Rules are few,
// whatever the size of the cluster; sets, which are not, are not read. The
// network namespace is that of the calling thread.
func (p *Plane) Counters() ([]dataplane.Counter, error) {
	chains, err := listing.Chains(nft.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("read counters of table inet %s: %w", TableName, err)
	}
	met := map[string]dataplane.Counter{}
	for _, chain := range chains {
		if chain.Table.Name != TableName {
			continue
		}
		rules, err := listing.Rules(chain)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the table is being replaced
		}
		if err != nil {
			return nil, err
		}
		for _, rule := range rules {
			comment, _ := userdata.GetString(rule.UserData, userdata.TypeComment)
			for _, part := range rule.Exprs {
				if counter, ok := part.(*expr.Counter); ok {
					sum := met[comment]
					met[comment] = dataplane.Counter{Rule: comment, Packets: sum.Packets + counter.Packets, Bytes: sum.Bytes + counter.Bytes}
				}
			}
		}
	}
	counters := make([]dataplane.Counter, 0, len(met))
	for _, counter := range met {
		counters = append(counters, counter)
	}
	slices.SortFunc(counters, func(a, b dataplane.Counter) int { return cmp.Compare(a.Rule, b.Rule) })
	return counters, nil
}
