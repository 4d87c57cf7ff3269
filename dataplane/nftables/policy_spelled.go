package nftables

import (
	"encoding/binary"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// A table that takes the place of another is one transaction, and the kernel makes
// ranges of ports known only after all else of it (nf_tables_commit). So a new
// table has them twice: as elements, and spelled out as rules, which count at once.
// The next transaction takes the rules away.

// spelling is whether the table has such rules.
type spelling int

const (
	notSpelled spelling = iota
	toBeSpelled
	spelledOut
	toBeUnspelled
)

// sent is what becomes of it when the kernel has taken a transaction.
func (s spelling) sent() spelling {
	switch s {
	case toBeSpelled:
		return spelledOut
	case toBeUnspelled:
		return notSpelled
	}
	return s
}

// addSpelled adds the rules of a new table.
func (s *policies) addSpelled(b *batch, row *nft.Chain) {
	s.spelled = notSpelled
	for name, ports := range s.steps[0].rows.All() {
		if name == allowAll {
			continue
		}
		number := s.rows.of(name)
		for _, r := range splitPorts(ports).ranges {
			s.spelled = toBeSpelled
			b.rule(row, "until ranges are known", hasPriority(number), []expr.Any{
				meta(expr.MetaKeyL4PROTO, word0), equal(byte(r.Protocol)),
				destinationPort(word0), &expr.Range{
					Op: expr.CmpOpEq, Register: word0,
					FromData: binary.BigEndian.AppendUint16(nil, r.From), ToData: binary.BigEndian.AppendUint16(nil, r.To),
				},
				&expr.Immediate{Register: word0, Data: native(s.decided(r.Decision))}, setPriority(),
			}, then(expr.VerdictReturn, ""))
		}
	}
}

// unspell takes them away.
func (s *policies) unspell(b *batch) {
	if s.spelled == notSpelled {
		return
	}
	s.spelled = toBeUnspelled
	row := chain(rowChain)
	b.FlushChain(row)
	s.fillRow(b, row, func(*batch, *nft.Chain) {})
}
