package nftables

import (
	"fmt"
	"os"
	"strings"
	"time"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/fairlead-net/fairlead/dataplane/nftables/listing"
	"github.com/fairlead-net/fairlead/model"
)

// A table succeeds another one, and no packet that is on its way is judged by neither, or
// by half of one. There are three things in the way (ADR 14):
//
// Of two chains of one priority the kernel asks the later one first
// (nf_hook_entries_grow). It has no rules until a transaction is carried out, and the
// other one, which is asked next, has none from then on. So each chain that the kernel
// asks has a double, which is asked after it. It is there before the transaction, without
// a rule, and until no packet is on its way any more that met the chain before it had
// rules. The two say the same, so nothing comes of asking both.
//
// Who is in the middle of the former rules finds nothing any more in their maps
// (nft_map_deactivate), but in those of ranges of ports, which the kernel looks up
// whatever is to become of them (pipapo_get). What finds nothing where there should be
// something is denied or refused by rules that are standing alone: see standing.
//
// New sets of ranges have nothing in them until the transaction is carried out and all
// that it changes is gone through (nft_set_commit_update), which with 100,000 elements
// takes 20 ms. So these are there before as well, under names that are free.
const (
	doubleSuffix = "-double"
	otherSuffix  = "-b"
)

// AddChain adds a chain, and before it its double: a packet that meets the chain meets the
// double, too.
func (b *batch) AddChain(c *nft.Chain) *nft.Chain {
	if b.doubled && c.Hooknum != nil {
		to := b
		if b.ahead != nil {
			to = b.ahead
		}
		b.doubles = append(b.doubles, to.Conn.AddChain(doubleOf(c)))
	}
	return b.Conn.AddChain(c)
}

func doubleOf(c *nft.Chain) *nft.Chain {
	d := *c
	d.Name += doubleSuffix
	d.Priority = nft.ChainPriorityRef(*c.Priority + 1)
	return &d
}

// AddSet adds a set where it belongs.
func (b *batch) AddSet(set *nft.Set, elements []nft.SetElement) error {
	return b.holds(set).Conn.AddSet(set, elements)
}

// holds is the batch that a set is in.
func (b *batch) holds(set *nft.Set) *batch {
	if b.ahead != nil && set.Interval {
		return b.ahead
	}
	return b
}

// clear begins a batch that makes the table anew. It removes what there is, but for what
// goes ahead of it.
func (p *Plane) clear(b *batch) error {
	table := ourTable()
	b.AddTable(table)
	there, err := tableHandle()
	if err != nil {
		return err
	}
	former, ok := former{}, true
	if there != 0 {
		b.doubled = true
		former, ok = readFormer()
	}
	if p.unlike || !ok {
		p.nameRanges("")
		b.DelTable(table)
		b.AddTable(table)
		return nil
	}
	if b.ahead, err = newBatch(b.most); err != nil {
		return err
	}
	b.ahead.link = b.link
	b.ahead.AddTable(table)
	p.makeRoom(b, former)
	return nil
}

// makeRoom removes the parts of a former table, and gives sets of ranges names that are
// free. Of a process that ended between the two there may be some that nothing uses.
func (p *Plane) makeRoom(b *batch, former former) {
	ranges := p.nameRanges(former.freeSuffix())
	if b.doubled {
		b.FlushTable(ourTable())
	}
	for _, name := range former.sets {
		to := b
		if ranges[name] {
			to = b.ahead
		}
		to.DelSet(&nft.Set{Table: ourTable(), Name: name})
	}
	for _, name := range former.chains {
		to := b
		if strings.HasSuffix(name, doubleSuffix) {
			to = b.ahead
			to.FlushChain(chain(name))
		}
		to.DelChain(chain(name))
	}
}

// nameRanges gives sets of ranges the names that they have with a suffix, and returns
// them.
func (p *Plane) nameRanges(suffix string) map[string]bool {
	names := map[string]bool{}
	for _, mirror := range p.mirrors() {
		for _, set := range mirror.kernel() {
			if set.Interval {
				set.Name = strings.TrimSuffix(set.Name, otherSuffix) + suffix
				names[set.Name] = true
			}
		}
	}
	return names
}

// former is what there is in a table that is to be succeeded.
type former struct {
	sets, chains []string
	suffix       string // of its sets of ranges
}

// freeSuffix is the other one of the two.
func (f *former) freeSuffix() string {
	if len(f.sets) > 0 && f.suffix == "" {
		return otherSuffix
	}
	return ""
}

// readFormer tells whether it is what could be ours, and could be read. Only chains are in
// one list with those of others: what those change meanwhile takes nothing from the rest.
func readFormer() (f former, ok bool) {
	conn := &nft.Conn{}
	sets, err := conn.GetSets(ourTable())
	if err != nil {
		return former{}, false
	}
	for _, set := range sets {
		if !set.Anonymous {
			f.sets = append(f.sets, set.Name)
		}
	}
	chains, err := listing.Chains(nft.TableFamilyINet)
	if err != nil {
		return former{}, false
	}
	for _, c := range chains {
		if c.Table.Name == TableName {
			f.chains = append(f.chains, c.Name)
		}
	}
	objects, err := conn.GetObjects(ourTable())
	if err != nil || len(objects) > 0 {
		return former{}, false
	}
	if tables, err := conn.ListFlowtables(ourTable()); err != nil || len(tables) > 0 {
		return former{}, false
	}
	r, err := openReader()
	if err != nil {
		return former{}, false
	}
	defer r.close()
	if r.says(standingName, otherRanges) {
		f.suffix = otherSuffix
	}
	return f, true
}

// sendNew sends a batch that makes the table anew, and what goes ahead of it.
func (p *Plane) sendNew(b *batch) ([]refusal, error) {
	p.doubles = b.doubles
	if b.ahead != nil {
		if refused, err := b.ahead.send(); err != nil || len(refused) > 0 {
			return refused, err
		}
		if len(b.doubles) > 0 {
			waitForPackets()
		}
	}
	return b.send()
}

// waitForPackets waits until all packets that are between two chains have met the others.
// The kernel tells that by a grace period of RCU (membarrier(2), MEMBARRIER_CMD_GLOBAL),
// which takes some ten milliseconds. Where it tells nothing, as with nohz_full or a single
// CPU, they are given the time.
func waitForPackets() {
	const global, grace = 1, 50 * time.Millisecond
	online, err := os.ReadFile("/sys/devices/system/cpu/online") // as 0-1,4
	single := err == nil && !strings.ContainsAny(string(online), "-,")
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0); errno != 0 || single {
		time.Sleep(grace)
	}
}

// undouble removes doubles.
func (p *Plane) undouble() error {
	doubles := p.doubles
	if len(doubles) == 0 {
		return nil
	}
	p.doubles = nil
	waitForPackets()
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

const (
	standingName = "standing"
	otherRanges  = ", ranges are in sets *" + otherSuffix
)

// standingMap has the same in it all the time. Where nothing is found in it the rules are
// on their way out. Whatever was looked up before and was not found may be there.
func standingMap() *nft.Set {
	const standingID = 999 // below those of literals, and above all others
	return &nft.Set{
		Name: standingName, Table: ourTable(), ID: standingID,
		IsMap: true, KeyType: nft.TypeNFProto, DataType: nft.TypeClassID,
	}
}

// standing is a part of rules that say what becomes of a packet of which nothing was
// found. It matches unless the table is on its way out: its successor judges then.
// It overwrites the priority.
func standing() []expr.Any {
	return []expr.Any{meta(expr.MetaKeyNFPROTO, word0), mapped(standingMap()), setPriority()}
}

// addStanding adds the map. Its comment says which names sets of ranges have.
func (p *Plane) addStanding(b *batch) error {
	set := standingMap()
	set.Comment = "empty as soon as other rules succeed these " + schema()
	if strings.HasSuffix(p.pods.sets[0].Name, otherSuffix) {
		set.Comment += otherRanges
	}
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
