package nftables

import (
	"fmt"
	"time"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/model"
)

// A table succeeds another one in one transaction, and yet a packet that is on its way
// might be judged by neither. Of two chains of one priority the kernel asks the later one
// first (nf_hook_entries_grow): it has no rules until the transaction is carried out, and
// the other one, which is asked next, has none from then on. And who is in the middle of
// that one finds nothing any more in its maps (nft_map_deactivate), but in those of ranges
// of ports, which the kernel looks up whatever is to become of them (pipapo_get).
//
// So a new table has each chain that the kernel asks twice, and the doubles are asked after
// the chains of the table that goes. Of the three that a packet meets, one has all of its
// rules and maps, at whichever moment between them. The two that are new say the same, so
// nothing comes of asking both. What finds nothing where there should be something is
// denied or refused by a table that is standing alone: see standing. When no packet is on
// its way any more that met the first of the three before it had rules, the doubles go.
const doubleSuffix = "-double"

// AddChain adds a chain, and before it its double: a packet that meets the chain meets the
// double, too.
func (b *batch) AddChain(c *nft.Chain) *nft.Chain {
	if b.doubled && c.Hooknum != nil {
		b.doubles = append(b.doubles, b.Conn.AddChain(doubleOf(c)))
	}
	return b.Conn.AddChain(c)
}

func doubleOf(c *nft.Chain) *nft.Chain {
	d := *c
	d.Name += doubleSuffix
	d.Priority = nft.ChainPriorityRef(*c.Priority + 1)
	return &d
}

// undouble removes doubles. It waits until all packets that are between two chains
// have met the others, which the kernel tells by a grace period of RCU (membarrier(2),
// MEMBARRIER_CMD_GLOBAL): that takes some ten milliseconds. A kernel that has none, as
// with nohz_full, is given the time.
func (p *Plane) undouble() error {
	doubles := p.doubles
	if len(doubles) == 0 {
		return nil
	}
	p.doubles = nil
	const global, grace = 1, 50 * time.Millisecond
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0); errno != 0 {
		time.Sleep(grace)
	}
	b, err := newBatch(inPieces)
	if err != nil {
		return err
	}
	b.link = p.link
	for _, d := range doubles {
		b.FlushChain(d)
		b.DelChain(d)
	}
	refused, err := b.send()
	for _, refusal := range refused {
		err = refusal.err
	}
	return err
}

// standingMap has the same in it all the time. Where nothing is found in it the table is
// on its way out. Whatever was looked up before and was not found may be there.
func standingMap() *nft.Set {
	const standingID = 999 // below those of literals, and above all others
	return &nft.Set{
		Name: "standing", Comment: "empty as soon as another table succeeds this one", Table: ourTable(), ID: standingID,
		IsMap: true, KeyType: nft.TypeNFProto, DataType: nft.TypeClassID,
	}
}

// standing is a part of rules that say what becomes of a packet of which nothing was
// found. It matches unless the table is on its way out: its successor judges then.
// It overwrites the priority.
func standing() []expr.Any {
	return []expr.Any{meta(expr.MetaKeyNFPROTO, word0), mapped(standingMap()), setPriority()}
}

// addStanding adds the map.
func (b *batch) addStanding() error {
	set := standingMap()
	var all []nft.SetElement
	for _, family := range model.Families {
		all = append(all, nft.SetElement{Key: []byte{headers[family].protocol}, Val: native(1)})
	}
	b.describe(set, described{hostData: true})
	b.elements = append(b.elements, nil)
	if err := b.AddSet(set, all); err != nil {
		return fmt.Errorf("add set %s: %w", set.Name, err)
	}
	return nil
}
