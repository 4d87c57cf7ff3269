package nftables

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"

	nft "github.com/google/nftables"

	"github.com/fairlead-net/fairlead/dataplane"
	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/policy"
)

// Denials implements dataplane.Denier: what rules of policies have denied since
// they came to this node, those that have denied nothing too. Without a table
// there are none. The network namespace is that of the calling thread.
func (p *Plane) Denials() ([]dataplane.Denial, error) {
	conn, err := nft.New()
	if err != nil {
		return nil, fmt.Errorf("read what policies deny: %w", err)
	}
	var all []dataplane.Denial
	for _, direction := range model.Directions {
		set := p.policies.denied[direction]
		elements, err := conn.GetSetElements(&nft.Set{Table: ourTable(), Name: set.Name})
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list map %s: %w", set.Name, err)
		}
		for _, element := range elements {
			if len(element.Key) != 4 || element.Counter == nil {
				continue
			}
			rule, known := p.policies.deniedBy(binary.NativeEndian.Uint32(element.Key))
			if !known {
				continue // it has come just now, and so has denied nothing
			}
			all = append(all, dataplane.Denial{
				Direction: direction, Rule: rule, Packets: element.Counter.Packets, Bytes: element.Counter.Bytes,
			})
		}
	}
	return all, nil
}

// DeniedBy tells which rule denied a packet that the kernel logged to
// DeniedLogGroup, by its mark. It may be called concurrently with Apply, and
// knows rules that have gone for a while.
func (p *Plane) DeniedBy(mark uint32) (policy.Rule, bool) { return p.policies.deniedBy(mark) }
