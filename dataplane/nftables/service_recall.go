package nftables

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	nft "github.com/google/nftables"

	"github.com/fairlead-net/fairlead/model"
	"github.com/fairlead-net/fairlead/plan/service"
)

// Clients that stay with a target are known to the kernel alone. A table that
// replaces another takes them over: an agent that is started again, or that
// mends what somebody has flushed in part, moves no client.

// mostRecalled is how many are taken over, in each family: the kernel reads a
// set out in a time that grows with the square of its size, half a second for
// so many.
var mostRecalled = 1 << 14

// stay is a client that stays with a target.
type stay struct {
	client []byte // as in the key of its map
	pool   service.Pool
	target netip.AddrPort
	left   time.Duration
}

// recall reads who stays where, from the table that is there. What cannot be
// read is not taken over.
func (s *services) recall() (all []stay) {
	pools := s.stickyVIPs()
	if len(pools) == 0 {
		return nil
	}
	r, err := openReader()
	if err != nil {
		return nil
	}
	defer r.close()
	if !r.sameSchema() {
		return nil
	}
	for i := range s.families {
		found, _ := s.families[i].recall(r, pools)
		all = append(all, found...)
	}
	return all
}

// stickyVIPs are those at which clients stay, with where they lead: those from
// outside, and pods and the node.
func (s *services) stickyVIPs() map[service.VIP][2]service.Pool {
	vips := map[service.VIP][2]service.Pool{}
	for vip, f := range s.desired.frontends.All() {
		if f.Sticky != 0 {
			vips[vip] = [2]service.Pool{f.Pool(f.Outside), f.Pool(f.Inside)}
		}
	}
	return vips
}

// recall finds the pools by the VIPs that lead to them: their numbers were
// another process's.
func (m *serviceMaps) recall(r *reader, vips map[service.VIP][2]service.Pool) (all []stay, err error) {
	pools := map[uint32]service.Pool{}
	for vip, of := range vips {
		if model.FamilyOf(vip.At.Addr()) != m.family {
			continue
		}
		for i, ids := range []*nft.Set{m.ids, m.insideIDs} {
			number, err := r.get(ids.Name, vipKey(vip))
			if err != nil {
				return nil, err
			}
			if len(number) == 4 {
				pools[binary.NativeEndian.Uint32(number)] = of[i]
			}
		}
	}
	if len(pools) == 0 {
		return nil, nil
	}
	clients, err := m.clients()
	if err != nil {
		return nil, err
	}
	targets := map[uint32]netip.AddrPort{}
	for _, e := range clients {
		length := int(clientLength[m.family])
		if len(e.key) != length+4 || len(e.value) != 4 || e.left <= 0 {
			continue
		}
		pool, ok := pools[binary.NativeEndian.Uint32(e.key[length:])]
		if !ok {
			continue
		}
		name := binary.NativeEndian.Uint32(e.value)
		if _, asked := targets[name]; !asked {
			if targets[name], err = m.target(r, name); err != nil {
				return nil, err
			}
		}
		all = append(all, stay{client: e.key[:length], pool: pool, target: targets[name], left: e.left})
	}
	return all, nil
}

// clients lists the map once more until that tells of nobody new, or of enough:
// a list made while the kernel enlarges the map lacks some.
func (m *serviceMaps) clients() (all []read, err error) {
	known := map[string]bool{}
	for seen, fresh := 0, true; fresh && seen < mostRecalled; {
		// A reader of its own: it may not read all, and what is left would be taken
		// for the answer to the next question.
		r, err := openReader()
		if err != nil {
			return nil, err
		}
		listed, err := r.list(m.affinity.Name, mostRecalled)
		r.close()
		if err != nil {
			return nil, err
		}
		fresh = false
		for _, e := range listed {
			if !known[string(e.key)] {
				known[string(e.key)], fresh = true, true
				all = append(all, e)
			}
		}
		seen += len(listed)
	}
	return all, nil
}

// target is what a name leads to; invalid if to nothing.
func (m *serviceMaps) target(r *reader, name uint32) (netip.AddrPort, error) {
	value, err := r.get(m.targets.Name, native(name))
	target, _ := readTarget(value)
	return target, err
}

// rebind adds those to a batch that makes the table, by the numbers that their
// pools will have. Who has lost his target is not bound.
func (s *services) rebind(b *batch, all []stay) error {
	names := map[service.Pool]map[netip.AddrPort]uint32{}
	var puts [len(model.Families)]pieces
	for _, stay := range all {
		slots := s.pending.changed[stay.pool]
		if slots == nil || !slots.sticky {
			continue
		}
		if names[stay.pool] == nil {
			names[stay.pool] = map[netip.AddrPort]uint32{}
			for slot, target := range slots.targets {
				names[stay.pool][target] = slots.id() | slots.names[slot]
			}
		}
		name, ok := names[stay.pool][stay.target]
		if !ok {
			continue
		}
		backends, _ := s.desired.backends.Get(stay.pool)
		left := min(stay.left, time.Duration(backends.Sticky)*time.Second)
		puts[stay.pool.Family] = append(puts[stay.pool.Family], piece{
			[]nft.SetElement{{Key: append(stay.client, native(slots.id())...), Val: native(name), Timeout: left}},
			func(error) { s.unrecalled = true },
		})
	}
	for i := range s.families {
		affinity := s.families[i].affinity
		if err := puts[i].send(b, affinity, (*nft.Conn).SetAddElements); err != nil {
			return fmt.Errorf("add to map %s: %w", affinity.Name, err)
		}
	}
	return nil
}
